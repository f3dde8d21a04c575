"""A gRPC server without protobuf: messages are plain bytes."""
import os
import time
from concurrent import futures

import grpc


def unary(request, context):
    context.set_trailing_metadata((("sum", str(len(request))),))
    metadata = dict(context.invocation_metadata())
    return request + b"|" + metadata.get("x-forwarded-proto", "").encode()


def refuse(request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")


def chat(requests, context):
    for request in requests:
        yield b"echo:" + request


def count(request, context):
    for number in range(int(request)):
        yield b"%d" % number * 1000


def hang(request, context):
    context.add_callback(lambda: print("the caller left", flush=True))
    yield b"first"
    while context.is_active():
        time.sleep(0.05)


class Handlers(grpc.GenericRpcHandler):
    def service(self, details):
        return {
            "/test.Test/Unary": grpc.unary_unary_rpc_method_handler(unary),
            "/test.Test/Refuse": grpc.unary_unary_rpc_method_handler(refuse),
            "/test.Test/Chat": grpc.stream_stream_rpc_method_handler(chat),
            "/test.Test/Count": grpc.unary_stream_rpc_method_handler(count),
            "/test.Test/Hang": grpc.unary_stream_rpc_method_handler(hang),
        }.get(details.method)


server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
server.add_generic_rpc_handlers((Handlers(),))
server.add_insecure_port("0.0.0.0:" + os.environ["PORT"])
server.start()
print("grpc listens", flush=True)
server.wait_for_termination()
