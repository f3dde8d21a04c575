import mill._, scalalib._
import coursier.maven.MavenRepository

object web extends ScalaModule {
  def scalaVersion = "2.13.8"
  // Debian's artifacts first: they may be all that can be reached.
  def repositoriesTask = T.task {
    Seq(MavenRepository("file:///opt/maven-mirror")) ++ super.repositoriesTask()
  }
  def ivyDeps = Agg(ivy"org.eclipse.jetty:jetty-server:9.x", ivy"javax.servlet:javax.servlet-api:4.0.1")
  def mainClass = Some("Hello")
}
