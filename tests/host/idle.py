"""Opens many connections to the router's port, asks once on each and keeps them; at the end of its
stdin says how many are still open."""
import resource
import select
import socket
import sys

port, count = int(sys.argv[1]), int(sys.argv[2])
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
request = b"GET / HTTP/1.1\r\nHost: odd.localhost\r\n\r\n"
connections = []
answered = 0
for _ in range(count):
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.sendall(request)
    answered += connection.recv(4096).startswith(b"HTTP/1.1 200 ")
    connections.append(connection)
print(answered, "answered", flush=True)
sys.stdin.read()
poll = select.poll()
for connection in connections:
    poll.register(connection, select.POLLIN | select.POLLRDHUP)
print(len(connections) - len(poll.poll(1000)))
