require "sinatra/base"

# The Ruby hello of the tests.
class App < Sinatra::Base
  get("/") { "hello from #{ENV["DYNO"]} by Sinatra #{Sinatra::VERSION.split(".").first}\n" }
end
