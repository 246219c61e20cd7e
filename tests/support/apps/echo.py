"""Echo in Python's ways: blocking sockets in threads, asyncio streams.

Speaks to the test by lines: prints "listening MODE PORT", reads "connect MODE HOST PORT
TARGET" (CONNECT through a proxy), ends when its input ends.
"""
import asyncio
import os
import random
import socket
import sys
import threading


def say(mode, port):
    # In one piece: others print, too.
    os.write(1, f"listening {mode} {port}\n".encode())


def echo(sock):
    """recv and sendall, with sizes of all kinds."""
    rng = random.Random(1)
    while data := sock.recv(rng.choice([1, 100, 4096, 65536, 1 << 20])):
        view = memoryview(data)
        while view:
            size = rng.choice([1, 1000, 16384, len(view)])
            sock.sendall(view[:size])
            view = view[size:]
    sock.shutdown(socket.SHUT_WR)
    sock.close()


def echo_head(sock, target):
    sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    assert b" 200 " in head.split(b"\r\n")[0], head


def serve_socket():
    listener = socket.create_server(("127.0.0.1", 0))
    say("socket", listener.getsockname()[1])
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=echo, args=(sock,), daemon=True).start()


def connect_socket(host, port, target):
    sock = socket.create_connection((host, port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    echo_head(sock, target)
    echo(sock)


async def echo_async(reader, writer):
    rng = random.Random(2)
    while data := await reader.read(rng.choice([100, 4096, 65536, 1 << 20])):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
    writer.close()


async def connect_async(host, port, target):
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in head.split(b"\r\n")[0], head
    await echo_async(reader, writer)


async def serve_async():
    server = await asyncio.start_server(echo_async, "127.0.0.1", 0)
    say("asyncio", server.sockets[0].getsockname()[1])
    await server.serve_forever()


def main():
    threading.Thread(target=serve_socket, daemon=True).start()
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(serve_async())]
    threading.Thread(target=loop.run_forever, daemon=True).start()
    for line in sys.stdin:
        _, mode, host, port, target = line.split()
        if mode == "socket":
            arguments = (host, int(port), target)
            threading.Thread(target=connect_socket, args=arguments, daemon=True).start()
        else:
            tasks.append(
                asyncio.run_coroutine_threadsafe(connect_async(host, int(port), target), loop)
            )


main()
