import mill._, scalalib._

object web extends ScalaModule {
  def scalaVersion = "2.13.8"
  def ivyDeps = Agg(ivy"org.eclipse.jetty:jetty-server:9.x", ivy"javax.servlet:javax.servlet-api:4.0.1")
  def mainClass = Some("Hello")
}
