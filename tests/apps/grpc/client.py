"""Calls server.py through the router: `client.py ADDRESS NAME ROOTS`. Says `all well` at the end."""
import queue
import sys

import grpc

address, name, roots = sys.argv[1:]
with open(roots, "rb") as file:
    credentials = grpc.ssl_channel_credentials(root_certificates=file.read())
options = [
    ("grpc.ssl_target_name_override", name),
    ("grpc.default_authority", name),
]
channel = grpc.secure_channel(address, credentials, options=options)

call = channel.unary_unary("/test.Test/Unary")
answer, done = call.with_call(b"hello", timeout=20)
assert answer == b"hello|https", answer
assert dict(done.trailing_metadata())["sum"] == "5", done.trailing_metadata()
answer = call(b"x" * 3_000_000, timeout=20)
assert len(answer) == 3_000_006, len(answer)

try:
    channel.unary_unary("/test.Test/Refuse")(b"", timeout=20)
    raise AssertionError("not refused")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.NOT_FOUND, error
    assert error.details() == "no such thing", error

# Each message is answered before the next one is sent.
messages = queue.Queue()
answers = channel.stream_stream("/test.Test/Chat")(iter(messages.get, None), timeout=20)
for number in range(20):
    messages.put(b"%d" % number)
    assert next(answers) == b"echo:%d" % number
messages.put(None)
assert list(answers) == []
assert answers.code() == grpc.StatusCode.OK

numbers = list(channel.unary_stream("/test.Test/Count")(b"500", timeout=20))
assert len(numbers) == 500 and numbers[7] == b"7" * 1000

hanging = channel.unary_stream("/test.Test/Hang")(b"", timeout=20)
assert next(hanging) == b"first"
hanging.cancel()
print("all well", flush=True)
