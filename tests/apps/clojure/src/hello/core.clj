(ns hello.core
  (:require [compojure.core :refer [defroutes GET]]
            [ring.adapter.jetty :refer [run-jetty]])
  (:gen-class))

(defroutes app
  (GET "/" [] (str "hello from " (System/getenv "DYNO") " by Clojure " (clojure-version) "\n")))

(defn -main []
  (run-jetty app {:port (Integer/parseInt (System/getenv "PORT"))}))
