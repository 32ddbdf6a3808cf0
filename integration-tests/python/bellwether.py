"""A small Bellwether client in plain Python 3, standard library only.

It shares no code with the Rust client: it was written from docs/protocol.md, and shows that the document is
enough. One connection, one thread, no reconnecting; what a program of its own would build on top of it.
"""

import base64
import hashlib
import hmac
import os
import select
import socket
import struct
import time
from collections import deque

# Kinds of frames.
HELLO, REQUEST, PUBLISH, SETTLE, HEARTBEAT, GOODBYE, AUTHENTICATE = 1, 2, 3, 4, 5, 6, 7
WELCOME, RESPONSE, FAILURE, CONFIRMED, PUBLISH_FAILED, PUBLISH_CREDIT = 32, 33, 34, 35, 36, 37
DELIVER, SETTLED, SETTLE_FAILED, CONSUMER_CLOSED, BROKER_HEARTBEAT, BROKER_GOODBYE = 38, 39, 40, 41, 42, 43
CHALLENGE = 44

# Requests.
DECLARE_EXCHANGE, DELETE_EXCHANGE, LIST_EXCHANGES, DECLARE_QUEUE, DELETE_QUEUE, PURGE_QUEUE = 1, 2, 3, 4, 5, 6
LIST_QUEUES, DESCRIBE_QUEUE, BIND, UNBIND, LIST_BINDINGS, CLUSTER_STATUS = 7, 8, 9, 10, 11, 12
ATTACH_PRODUCER, DETACH_PRODUCER, ATTACH_CONSUMER, DETACH_CONSUMER = 13, 14, 15, 16

# Responses.
DONE, DECLARED, PURGED, EXCHANGES, QUEUES, QUEUE, BINDINGS, CLUSTER, PRODUCER_ATTACHED, CONSUMER_ATTACHED = range(1, 11)

# Kinds of exchanges, settlements, outcomes.
DIRECT, FANOUT = 1, 2
ACK, REJECT, RETURN = 1, 2, 3
NOT_DONE, UNKNOWN = 0, 1

# Longest frame taken before the broker has named its limit, in bytes.
WELCOME_BYTES_MAX = 64 * 1024


class ProtocolError(Exception):
    """The broker sent something that is not in the protocol."""


class ConnectionClosed(Exception):
    """The broker closed the connection without a goodbye."""


class BrokerError(Exception):
    """What a broker answers when it cannot do as asked."""

    def __init__(self, body):
        code, outcome, message, leader = body[:4]
        super().__init__(f"{message} (code {code})")
        self.code = code
        self.done = None if outcome == UNKNOWN else False
        self.leader = tuple(leader[:2]) if leader else None  # (broker number, "host:port")


class Goodbye(BrokerError):
    """The last frame of a connection: why the broker closes it."""


# MessagePack, as much of it as the protocol uses.


def pack(value):
    """Encodes None, bool, int, float, str, bytes, list, tuple and dict."""
    out = bytearray()
    _pack(value, out)
    return bytes(out)


def _pack(value, out):
    if value is None:
        out.append(0xC0)
    elif value is False or value is True:
        out.append(0xC3 if value else 0xC2)
    elif isinstance(value, int):
        _pack_int(value, out)
    elif isinstance(value, float):
        out += b"\xcb" + struct.pack(">d", value)
    elif isinstance(value, str):
        text = value.encode()
        _pack_head(out, len(text), (0xA0, 32), 0xD9, 0xDA, 0xDB)
        out += text
    elif isinstance(value, (bytes, bytearray, memoryview)):
        _pack_head(out, len(value), None, 0xC4, 0xC5, 0xC6)
        out += value
    elif isinstance(value, (list, tuple)):
        _pack_head(out, len(value), (0x90, 16), None, 0xDC, 0xDD)
        for item in value:
            _pack(item, out)
    elif isinstance(value, dict):
        _pack_head(out, len(value), (0x80, 16), None, 0xDE, 0xDF)
        for key, item in value.items():
            _pack(key, out)
            _pack(item, out)
    elif isinstance(value, Raw):
        out += value.encoded
    else:
        raise TypeError(f"{type(value).__name__} has no place in a frame")


class Raw:
    """Bytes that are MessagePack already."""

    def __init__(self, encoded):
        self.encoded = encoded


def _pack_int(value, out):
    if 0 <= value < 0x80:
        out.append(value)
    elif value < 0:
        out += struct.pack(">b", value) if value >= -32 else b"\xd3" + struct.pack(">q", value)
    elif value < 1 << 8:
        out += b"\xcc" + struct.pack(">B", value)
    elif value < 1 << 16:
        out += b"\xcd" + struct.pack(">H", value)
    elif value < 1 << 32:
        out += b"\xce" + struct.pack(">I", value)
    else:
        out += b"\xcf" + struct.pack(">Q", value)


def _pack_head(out, count, fix, one, two, four):
    if fix and count < fix[1]:
        out.append(fix[0] | count)
    elif one and count < 1 << 8:
        out += struct.pack(">BB", one, count)
    elif count < 1 << 16:
        out += struct.pack(">BH", two, count)
    else:
        out += struct.pack(">BI", four, count)


_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
    0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}
_LENGTHS = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}
_COUNTS = {0xDC: ">H", 0xDD: ">I", 0xDE: ">H", 0xDF: ">I"}


class Unpacker:
    """Reads MessagePack values from bytes."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        end = self.at + count
        if end > len(self.data):
            raise ProtocolError(f"{count} bytes are announced where {len(self.data) - self.at} are left")
        taken = self.data[self.at:end]
        self.at = end
        return taken

    def number(self, layout):
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def value(self):
        marker = self.take(1)[0]
        if marker < 0x80:
            return marker
        if marker >= 0xE0:
            return marker - 0x100
        if marker < 0x90:
            return self.map(marker & 0x0F)
        if marker < 0xA0:
            return self.array(marker & 0x0F)
        if marker < 0xC0:
            return self.take(marker & 0x1F).decode()
        if marker in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[marker]
        if marker in _NUMBERS:
            return self.number(_NUMBERS[marker])
        if marker in _LENGTHS:
            taken = self.take(self.number(_LENGTHS[marker]))
            return taken.decode() if marker >= 0xD9 else bytes(taken)
        if marker in (0xDC, 0xDD):
            return self.array(self.number(_COUNTS[marker]))
        if marker in (0xDE, 0xDF):
            return self.map(self.number(_COUNTS[marker]))
        raise ProtocolError(f"the marker {marker:02x} has no place in a frame")

    def array(self, count):
        return [self.value() for _ in range(count)]

    def map(self, count):
        return {self.value(): self.value() for _ in range(count)}


def unpack(data):
    """Decodes one value that fills `data`."""
    unpacker = Unpacker(data)
    value = unpacker.value()
    if unpacker.at != len(data):
        raise ProtocolError(f"{len(data) - unpacker.at} bytes follow the value")
    return value


# The connection.


class Delivery:
    """One message for a consumer."""

    def __init__(self, consumer, epoch, offset, run, message):
        self.consumer, self.epoch, self.offset = consumer, epoch, offset
        _, self.redelivered, self.returns, self.time_ms, self.exchange, self.routing_key = run[:6]
        headers, self.body = message[:2]
        self.headers = headers or {}

    def __repr__(self):
        return f"Delivery(offset={self.offset}, epoch={self.epoch}, redelivered={self.redelivered})"


class Scram:
    """The client's side of SCRAM-SHA-256. Passwords here are ASCII, which SASLprep leaves as it is."""

    def __init__(self, user, password, nonce=None):
        self.password = password.encode()
        self.nonce = nonce or base64.b64encode(os.urandom(18)).decode()
        user = user.replace("=", "=3D").replace(",", "=2C")
        self.bare = f"n={user},r={self.nonce}"

    def first(self):
        return f"n,,{self.bare}".encode()

    def final(self, challenge):
        """Answers the broker's challenge."""
        challenge = challenge.decode()
        nonce, salt, iterations = (part[2:] for part in challenge.split(",")[:3])
        if not nonce.startswith(self.nonce) or nonce == self.nonce:
            raise ProtocolError("the broker's nonce does not go on with ours")
        if not 4096 <= int(iterations) <= 2_000_000:
            raise ProtocolError(f"the broker asks for {iterations} iterations")
        salted = hashlib.pbkdf2_hmac("sha256", self.password, base64.b64decode(salt), int(iterations))
        without_proof = f"c=biws,r={nonce}"
        message = f"{self.bare},{challenge},{without_proof}".encode()
        key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(key).digest(), message, "sha256")
        proof = bytes(one ^ other for one, other in zip(key, signature))
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        self.expected = b"v=" + base64.b64encode(hmac.digest(server_key, message, "sha256"))
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def check(self, proof):
        """Whether the broker has proved that it knows the user."""
        if proof is None or not hmac.compare_digest(proof, self.expected):
            raise ProtocolError("the broker did not prove that it knows the user")


class Connection:
    """One connection to one broker, past its handshake."""

    def __init__(self, address, name="bellwether.py", virtual_host="/", versions=(1, 1), heartbeat_ms=10_000, timeout=10.0,
                 user=None, password=None):
        self.timeout = timeout
        self.socket = connect(address, timeout)
        self.arrived = bytearray()
        self.frame_bytes_max = WELCOME_BYTES_MAX
        self.next_id = self.next_handle = 0
        self.answers, self.deliveries, self.failed_settles = {}, deque(), {}
        self.credit, self.confirmed, self.failed = {}, {}, {}
        self.settled, self.closed, self.numbers = {}, {}, {}
        self.heartbeats = 0
        self.wants_to_hear = None
        self.said = time.monotonic()
        hello = [HELLO, versions[0], versions[1], name, heartbeat_ms, virtual_host]
        scram = Scram(user, password) if user else None
        self.send(hello + ["SCRAM-SHA-256", scram.first()] if scram else hello)
        welcome = self.receive(timeout)
        if scram and welcome[0] == CHALLENGE:
            self.send([AUTHENTICATE, scram.final(welcome[1])])
            welcome = self.receive(timeout)
        if welcome[0] != WELCOME:
            raise ProtocolError(f"a welcome was expected, not kind {welcome[0]}")
        (_, self.version, self.cluster, self.broker, self.heartbeat_ms, self.frame_bytes_max,
         self.message_bytes_max, brokers) = welcome[:8]
        if scram:
            scram.check(welcome[8] if len(welcome) > 8 else None)
        self.brokers = dict(tuple(broker[:2]) for broker in brokers)
        self.wants_to_hear = self.heartbeat_ms / 1000 or None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Says goodbye and waits until the broker has closed."""
        try:
            self.send([GOODBYE])
            while True:
                self.receive(self.timeout)
        except (ConnectionClosed, Goodbye, OSError):
            pass
        self.socket.close()

    # Frames.

    def send(self, frame):
        body = pack(frame)
        self.send_bytes(struct.pack(">I", len(body)) + body)

    def send_bytes(self, data):
        self.socket.sendall(data)
        self.said = time.monotonic()

    def receive(self, timeout):
        """The next frame. Raises TimeoutError, ConnectionClosed or Goodbye."""
        deadline = time.monotonic() + timeout
        while True:
            frame = self._cut()
            if frame is not None:
                if frame[0] == BROKER_GOODBYE:
                    raise Goodbye(frame[1])
                return frame
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"nothing arrived within {timeout} s")
            self._wait(left)

    def _cut(self):
        if len(self.arrived) < 4:
            return None
        length = struct.unpack(">I", self.arrived[:4])[0]
        if not 0 < length <= self.frame_bytes_max:
            raise ProtocolError(f"a frame of {length} bytes, where {self.frame_bytes_max} are allowed")
        if len(self.arrived) < 4 + length:
            return None
        body = bytes(self.arrived[4:4 + length])
        del self.arrived[:4 + length]
        return unpack(body)

    def _wait(self, patience):
        """Waits for bytes; tells the broker now and then that this side is there."""
        if self.wants_to_hear:
            due = self.said + self.wants_to_hear / 2 - time.monotonic()
            if due <= 0:
                self.send([HEARTBEAT])
                return
            patience = min(patience, due)
        readable, _, _ = select.select([self.socket], [], [], patience)
        if readable:
            data = self.socket.recv(256 * 1024)
            if not data:
                raise ConnectionClosed("the broker closed the connection")
            self.arrived += data

    def pump(self, until, timeout=None, what="an answer"):
        """Takes frames in until `until()` is true."""
        deadline = time.monotonic() + (timeout or self.timeout)
        while not until():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{what} did not come in time")
            try:
                self._take(self.receive(left))
            except TimeoutError:
                raise TimeoutError(f"{what} did not come in time") from None

    def idle(self, seconds):
        """Takes in what comes for a while."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                self._take(self.receive(left))
            except TimeoutError:
                return

    def _take(self, frame):
        kind, fields = frame[0], frame[1:]
        if kind in (RESPONSE, FAILURE):
            self.answers[fields[0]] = (kind, fields[1])
        elif kind == CONFIRMED:
            for first, last in fields[1]:
                self.confirmed.setdefault(fields[0], set()).update(range(first, last + 1))
        elif kind == PUBLISH_FAILED:
            first, last = fields[1]
            for seq in range(first, last + 1):
                self.failed.setdefault(fields[0], {})[seq] = BrokerError(fields[2])
        elif kind == PUBLISH_CREDIT:
            self.credit[fields[0]] = (fields[1], fields[2])
        elif kind == DELIVER:
            self._deliver(*fields[:3])
        elif kind == SETTLED:
            self.settled[fields[0]] = fields[1]
        elif kind == SETTLE_FAILED:
            self.failed_settles[fields[0], fields[1]] = BrokerError(fields[2])
        elif kind == CONSUMER_CLOSED:
            self.closed[fields[0]] = BrokerError(fields[1])
        elif kind == BROKER_HEARTBEAT:
            self.heartbeats += 1
        else:
            raise ProtocolError(f"a frame of kind {kind} was not expected")

    def _deliver(self, consumer, epoch, runs):
        for run in runs:
            for index, message in enumerate(run[6]):
                self.deliveries.append(Delivery(consumer, epoch, run[0] + index, run, message))

    # Requests.

    def request(self, *request, timeout=None):
        """Asks for something; the fields of the response without its kind, which is checked by the caller."""
        self.next_id += 1
        wanted = self.next_id
        self.send([REQUEST, wanted, list(request)])
        self.pump(lambda: wanted in self.answers, timeout, f"the answer to request {request[0]}")
        kind, answer = self.answers.pop(wanted)
        if kind == FAILURE:
            raise BrokerError(answer)
        return answer

    def ask(self, response_kind, *request):
        answer = self.request(*request)
        if answer[0] != response_kind:
            raise ProtocolError(f"request {request[0]} was answered with response {answer[0]}, not {response_kind}")
        return answer[1:]

    def declare_queue(self, queue, replicas=3, min_isr=None, strict=False):
        return self.ask(DECLARED, DECLARE_QUEUE, queue, [replicas, min_isr, strict])

    def delete_queue(self, queue, if_unused=False, if_empty=False):
        self.ask(DONE, DELETE_QUEUE, queue, if_unused, if_empty)

    def purge_queue(self, queue):
        return self.ask(PURGED, PURGE_QUEUE, queue)[0]

    def describe_queue(self, queue):
        """Summary and counts, as dictionaries."""
        summary, counts = self.ask(QUEUE, DESCRIBE_QUEUE, queue)[:2]
        names = "name id replicas in_sync min_isr leader epoch".split()
        figures = "enqueued ready delivered settled purged consumers bytes high_watermark log_end".split()
        return dict(zip(names, summary)), dict(zip(figures, counts))

    def queues(self, after=None, limit=1000):
        return [queue[0] for queue in self.ask(QUEUES, LIST_QUEUES, after, limit)[0]]

    def declare_exchange(self, exchange, kind):
        self.ask(DONE, DECLARE_EXCHANGE, exchange, kind)

    def delete_exchange(self, exchange, if_unused=False):
        self.ask(DONE, DELETE_EXCHANGE, exchange, if_unused)

    def exchanges(self):
        return {name: kind for name, kind in self.ask(EXCHANGES, LIST_EXCHANGES)[0]}

    def bind(self, exchange, queue, routing_key=""):
        self.ask(DONE, BIND, exchange, queue, routing_key)

    def unbind(self, exchange, queue, routing_key=""):
        self.ask(DONE, UNBIND, exchange, queue, routing_key)

    def bindings(self, queue=None):
        return [tuple(binding[:3]) for binding in self.ask(BINDINGS, LIST_BINDINGS, queue)[0]]

    # Publishing.

    def attach_producer(self, name=None, first=1):
        self.next_handle += 1
        handle = self.next_handle
        self.ask(PRODUCER_ATTACHED, ATTACH_PRODUCER, handle, name, first)
        self.pump(lambda: handle in self.credit, what="credit for a new producer")
        return handle

    def detach_producer(self, handle):
        self.ask(DONE, DETACH_PRODUCER, handle)

    def publish(self, handle, first, exchange, routing_key, messages, resent=False):
        """Sends messages numbered from `first` on: bodies, or (headers, body)."""
        messages = [message if isinstance(message, tuple) else (None, message) for message in messages]
        self.send([PUBLISH, handle, first, resent, exchange, routing_key, messages])

    def confirm(self, handle, first, last):
        """Waits until these are confirmed; raises what one of them failed with."""
        wanted = set(range(first, last + 1))

        def answered():
            return wanted <= self.confirmed.get(handle, set()) | self.failed.get(handle, {}).keys()

        self.pump(answered, what=f"the confirm of messages {first} to {last}")
        for seq in sorted(wanted & self.failed.get(handle, {}).keys()):
            raise self.failed[handle].pop(seq)

    # Consuming.

    def attach_consumer(self, queue, prefetch=10, prefetch_bytes=0):
        """The handle, and the epoch that its deliveries carry. Only the queue's leader takes it."""
        self.next_handle += 1
        handle = self.next_handle
        epoch = self.ask(CONSUMER_ATTACHED, ATTACH_CONSUMER, handle, queue, prefetch, prefetch_bytes)[0]
        return handle, epoch

    def detach_consumer(self, handle):
        self.ask(DONE, DETACH_CONSUMER, handle)

    def take(self, count):
        """The next deliveries, of any consumer."""
        self.pump(lambda: len(self.deliveries) >= count, what=f"{count} deliveries")
        return [self.deliveries.popleft() for _ in range(count)]

    def settle(self, settlement, deliveries):
        """Settles deliveries of one consumer and one epoch, in ranges; waits for the confirm."""
        consumer, epoch = deliveries[0].consumer, deliveries[0].epoch
        self.settle_ranges(consumer, epoch, settlement, ranges(delivery.offset for delivery in deliveries))

    def settle_ranges(self, consumer, epoch, settlement, offsets):
        number = self.numbers.get(consumer, 0) + 1
        self.numbers[consumer] = number
        self.send([SETTLE, consumer, number, epoch, settlement, offsets])

        def answered():
            return self.settled.get(consumer, 0) >= number or (consumer, number) in self.failed_settles

        self.pump(answered, what=f"the confirm of settle {number}")
        if (consumer, number) in self.failed_settles:
            raise self.failed_settles.pop((consumer, number))


def connect(address, timeout):
    host, port = address.rsplit(":", 1)
    opened = socket.create_connection((host.strip("[]"), int(port)), timeout)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return opened


def ranges(offsets):
    """Ascending ranges [first, end) that hold these offsets."""
    found = []
    for offset in sorted(offsets):
        if found and found[-1][1] == offset:
            found[-1][1] = offset + 1
        else:
            found.append([offset, offset + 1])
    return found


def at_leader(connection, queue):
    """A connection to the queue's leader: this one, or another that a redirect named."""
    for _ in range(50):
        try:
            connection.describe_queue(queue)
            return connection
        except BrokerError as error:
            if error.code != 500:
                raise
            if error.leader and error.leader[0] != connection.broker:
                connection = Connection(error.leader[1], timeout=connection.timeout)
            else:
                time.sleep(0.1)
    raise TimeoutError(f"no leader of {queue} was found")
