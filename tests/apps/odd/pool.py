"""A web process that keeps connections: `one` at a time, or `many`. Says how many there were.

`hasty` keeps none of them for long, and says so to nobody.

As Python's server does it, head and body of an answer go out apart, with Nagle's algorithm on.
"""

import http.server
import os
import random
import sys
import time

connections = 0


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        global connections
        connections += 1
        super().setup()

    def do_GET(self):
        body = str(connections).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if sys.argv[1] == "hasty":
            time.sleep(random.choice((0, 0.0005, 0.001, 0.002, 0.004)))
            self.close_connection = True

    do_POST = do_GET

    def log_message(self, *_):
        pass


server = http.server.HTTPServer if sys.argv[1] == "one" else http.server.ThreadingHTTPServer
server.request_queue_size = 128
server(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
