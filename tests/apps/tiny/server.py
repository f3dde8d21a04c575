"""A web process on Python's standard library alone."""

import http.server
import os
import sys
import time


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/env":
            body = "\n".join(f"{k}={v}" for k, v in sorted(os.environ.items()))
        elif self.path == "/files":
            body = "\n".join(sorted(os.listdir("/app")))
        elif self.path.startswith("/slow/"):
            time.sleep(int(os.path.basename(self.path)) / 1000)
            body = "at last"
        elif self.path.startswith("/write/"):
            name = os.path.join("/app", os.path.basename(self.path))
            with open(name, "w", encoding="utf-8") as file:
                file.write("written by " + os.environ["DYNO"])
            body = "written"
        else:
            body = f"hello from {os.environ['DYNO']}"
        self.answer((body + "\n").encode())

    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, data):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format, *args):
        print("request", self.path, flush=True)


class Server(http.server.ThreadingHTTPServer):
    # Python's default is 5: of more at once the kernel drops some, and each tries again for seconds.
    request_queue_size = 128


port = int(os.environ["PORT"])
print(f"tiny listens on {port}", flush=True)
try:
    Server(("0.0.0.0", port), Handler).serve_forever()
except KeyboardInterrupt:
    sys.exit(0)
