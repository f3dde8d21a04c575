(defproject hello "1.0"
  :description "The Clojure hello of the tests"
  :min-lein-version "2.0.0"
  :dependencies [[org.clojure/clojure ~(or (System/getenv "CLOJURE_VERSION") "1.11.1")]
                 [compojure "1.6.0"]
                 [ring/ring-jetty-adapter "1.8.2"]]
  :main ^:skip-aot hello.core
  :uberjar-name "hello-standalone.jar"
  :profiles {:uberjar {:aot :all}})
