import javax.servlet.http.{HttpServletRequest, HttpServletResponse}
import org.eclipse.jetty.server.{Request, Server}
import org.eclipse.jetty.server.handler.AbstractHandler

/** The Scala hello of the tests. */
object Hello {
  def main(arguments: Array[String]): Unit = {
    val server = new Server(sys.env("PORT").toInt)
    server.setHandler(new AbstractHandler {
      def handle(target: String, base: Request, in: HttpServletRequest, out: HttpServletResponse): Unit = {
        base.setHandled(true)
        out.getWriter.println(s"hello from ${sys.env("DYNO")} by Scala ${util.Properties.versionNumberString}")
      }
    })
    server.start()
    server.join()
  }
}
