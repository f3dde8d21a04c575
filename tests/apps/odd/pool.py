"""A web process that keeps connections: `one` at a time, or `many`. Says how many there were.

As Python's server does it, head and body of an answer go out apart, with Nagle's algorithm on.
"""

import http.server
import os
import sys

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

    def log_message(self, *_):
        pass


server = http.server.HTTPServer if sys.argv[1] == "one" else http.server.ThreadingHTTPServer
server.request_queue_size = 128
server(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
