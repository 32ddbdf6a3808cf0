#!/usr/bin/env python3
"""Checks a broker against docs/protocol.md, with a client that was written from that page alone.

    python3 conformance.py HOST:PORT [USER PASSWORD]

With a user, who may do everything in the virtual host /, logins are checked, too.

Exit code 0: every check held. 1: one did not; the last lines say which, and what was seen. 2: bad usage.
Uses names of its own, and deletes what it has declared.
"""

import os
import struct
import sys
import time
import traceback

import bellwether as bw

CHECKS = []
RUN = f"conformance-{os.getpid()}-{time.time_ns() // 1_000_000 % 1_000_000}"

MALFORMED, TOO_LARGE_A_FRAME, UNSUPPORTED_VERSION, UNEXPECTED_FRAME = 100, 101, 102, 103
INVALID_NAME, INVALID_OPTION, NO_SUCH_QUEUE, NO_SUCH_EXCHANGE, OPTIONS_DIFFER, IN_USE, NOT_ALLOWED = range(200, 207)
TOO_FEW_BROKERS, MESSAGE_TOO_LARGE, NO_SUCH_PRODUCER, NOT_LEADER = 207, 300, 301, 500
NO_SUCH_CONSUMER, STALE, OUT_OF_SEQUENCE = 400, 401, 303
LOGIN_REFUSED, LOGIN_REQUIRED, ACCESS_REFUSED = 107, 108, 208
LOGIN = sys.argv[2:4]


def check(sentence):
    """A check, told as the sentence of the page that it holds the broker to."""

    def add(function):
        CHECKS.append((sentence, function))
        return function

    return add


class Failed(Exception):
    """The broker does not do what the page says."""


def expect(holds, seen):
    if not holds:
        raise Failed(str(seen))


def equal(seen, wanted, what):
    expect(seen == wanted, f"{what}: {seen!r} instead of {wanted!r}")


def refused(code, do, *arguments):
    """The error with this code that `do` has to end in; it says "not done"."""
    try:
        answer = do(*arguments)
    except bw.BrokerError as error:
        equal(error.code, code, f"the code of {str(error)!r}")
        equal(error.done, False, f"whether {str(error)!r} says not done")
        expect(len(str(error)) > 10, "an error has words for a person")
        return error
    raise Failed(f"error {code} was expected, but it was done: {answer!r}")


def goodbye(code, connection):
    try:
        while True:
            connection.receive(5)
    except bw.Goodbye as error:
        equal(error.code, code, f"the code of {str(error)!r}")
    try:
        frame = connection.receive(5)
    except (bw.ConnectionClosed, ConnectionResetError):
        return
    raise Failed(f"the connection lives on after its goodbye: {frame!r}")


class Raw(bw.Connection):
    """A connection that has not said hello."""

    def __init__(self, address):
        self.timeout = 10
        self.socket = bw.connect(address, 10)
        self.arrived, self.frame_bytes_max, self.wants_to_hear = bytearray(), bw.WELCOME_BYTES_MAX, None


class Scene:
    """What a check works with: connections, queues and exchanges that are gone afterwards."""

    def __init__(self, address):
        self.address = address
        self.connection = bw.Connection(address)
        self.opened, self.declared, self.exchanges = [self.connection], [], []

    def connect(self, address=None, **options):
        connection = bw.Connection(address or self.address, **options)
        self.opened.append(connection)
        return connection

    def queue(self, suffix, **options):
        name = f"{RUN}-{suffix}"
        self.connection.declare_queue(name, **options)
        self.declared.append(name)
        return name

    def exchange(self, suffix, kind):
        name = f"{RUN}-{suffix}"
        self.connection.declare_exchange(name, kind)
        self.exchanges.append(name)
        return name

    def leader(self, queue):
        """A connection to the queue's leader."""
        connection = bw.at_leader(self.connection, queue)
        if connection is not self.connection:
            self.opened.append(connection)
        return connection

    def publish(self, queue, *bodies):
        producer = self.connection.attach_producer()
        self.connection.publish(producer, 1, "", queue, list(bodies))
        self.connection.confirm(producer, 1, len(bodies))
        self.connection.detach_producer(producer)

    def counts(self, queue):
        counts = self.leader(queue).describe_queue(queue)[1]
        total = counts["ready"] + counts["delivered"] + counts["settled"] + counts["purged"]
        equal(total, counts["enqueued"], f"ready + delivered + settled + purged of {counts}")
        return counts

    def until(self, queue, **wanted):
        """Waits until the counts are these: what a consumer gave back is back a moment later."""
        deadline = time.monotonic() + 10
        while True:
            counts = self.counts(queue)
            if all(counts[name] == value for name, value in wanted.items()):
                return
            expect(time.monotonic() < deadline, f"the counts of {queue} are {counts}, not {wanted}")
            time.sleep(0.02)

    def leave(self):
        for queue in self.declared:
            try:
                self.leader(queue).delete_queue(queue)
            except bw.BrokerError as error:
                if error.code != NO_SUCH_QUEUE:
                    raise
        for exchange in self.exchanges:
            self.connection.delete_exchange(exchange)
        for connection in self.opened:
            connection.close()


# Framing and handshake.


@check("The broker chooses the highest version that both speak, and says what holds on this connection")
def handshake(scene):
    connection = scene.connect(versions=(1, 999), name="a client of the future")
    equal(connection.version, 1, "the version")
    equal(len(connection.cluster), 16, "the length of the cluster's identity")
    expect(connection.broker in connection.brokers, f"broker {connection.broker} is not among {connection.brokers}")
    expect(connection.frame_bytes_max > connection.message_bytes_max > 0, "a message fits into a frame")
    equal(connection.ask(bw.CLUSTER, bw.CLUSTER_STATUS)[0], connection.cluster, "the cluster")


@check("Without a common version the broker says UnsupportedVersion, with the versions of both sides, and closes")
def future(scene):
    for versions in [(900, 999), (0, 0)]:
        try:
            scene.connect(versions=versions)
        except bw.Goodbye as error:
            equal(error.code, UNSUPPORTED_VERSION, f"the code of {str(error)!r}")
            expect(str(versions[1]) in str(error), f"{str(error)!r} does not name version {versions[1]}")
        else:
            raise Failed(f"versions {versions} were welcomed")


@check("Fields at the end of an array that the broker does not know are skipped")
def trailing(scene):
    raw = Raw(scene.address)
    raw.send([bw.HELLO, 1, 1, "from later", 0, "/", None, None, "new", {"x": [1, 2.5, None]}, -7])
    equal(raw.receive(5)[0], bw.WELCOME, "the kind of the answer")
    raw.send([bw.REQUEST, 1, [bw.LIST_EXCHANGES, "new"], b"newer"])
    equal(raw.receive(5)[:2], [bw.RESPONSE, 1], "the answer")
    raw.close()


@check("Who logs in by SCRAM-SHA-256 proves the password, and so does the broker")
def login(scene):
    # The example of RFC 7677.
    scram = bw.Scram("user", "pencil", nonce="rOprNGfwEbeRWgbNEkqO")
    equal(scram.first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", "the first message")
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    final = scram.final(f"r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode())
    equal(final, f"c=biws,r={nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=".encode(), "the final message")
    scram.check(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
    if LOGIN:
        user, password = LOGIN
        connection = scene.connect(user=user, password=password)
        connection.ask(bw.EXCHANGES, bw.LIST_EXCHANGES)
        refused(ACCESS_REFUSED, connection.ask, bw.CLUSTER, bw.CLUSTER_STATUS)


@check("A wrong password and an unknown user are refused alike, and an unknown mechanism says which there are")
def logins_refused(scene):
    said = set()
    for user in LOGIN[:1] + ["nobody", "no=body,at all"]:
        try:
            scene.connect(user=user, password="wrong")
        except bw.Goodbye as error:
            equal(error.code, LOGIN_REFUSED, f"the code of {str(error)!r}")
            said.add(str(error))
        else:
            raise Failed(f"{user} was welcomed")
    equal(len(said), 1, "different answers")
    raw = Raw(scene.address)
    raw.send([bw.HELLO, 1, 1, "old", 0, "/", "CRAM-MD5", b""])
    try:
        raw.receive(5)
    except bw.Goodbye as error:
        equal(error.code, LOGIN_REQUIRED, f"the code of {str(error)!r}")
        expect("SCRAM-SHA-256" in str(error), str(error))


@check("The first frame has to be Hello")
def hello_first(scene):
    raw = Raw(scene.address)
    raw.send([bw.HEARTBEAT])
    goodbye(UNEXPECTED_FRAME, raw)


@check("Bytes that are no frame, and frames over the limit, end in a goodbye that says so")
def hostile(scene):
    for code, data in [
        (MALFORMED, struct.pack(">I", 3) + b"\xc1\xc1\xc1"),
        (MALFORMED, struct.pack(">I", 5) + b"\xdd\xff\xff\xff\xff"),
        (MALFORMED, struct.pack(">I", 400) + b"\x91" * 400),
        (TOO_LARGE_A_FRAME, struct.pack(">I", 0xFFFFFFFF)),
    ]:
        raw = Raw(scene.address)
        raw.send_bytes(data)
        goodbye(code, raw)
    connection = scene.connect()
    connection.send_bytes(struct.pack(">I", connection.frame_bytes_max + 1))
    goodbye(TOO_LARGE_A_FRAME, connection)


@check("A request whose rest cannot be read gets a Failure, and the connection lives on")
def unreadable(scene):
    connection = scene.connection
    refused(INVALID_NAME, connection.declare_queue, "")
    refused(INVALID_NAME, connection.declare_queue, "x" * 256)
    refused(INVALID_NAME, connection.describe_queue, "bell\a")
    refused(MALFORMED, connection.request, 999, "a request of a later version")
    connection.exchanges()


@check("The broker sends something at least as often as the client asks for")
def heartbeats(scene):
    connection = scene.connect(heartbeat_ms=200)
    connection.pump(lambda: connection.heartbeats >= 2, timeout=2, what="a second heartbeat within two seconds")


@check("After a goodbye of the client the broker closes")
def leaving(scene):
    connection = bw.Connection(scene.address)
    connection.send([bw.GOODBYE])
    try:
        while True:
            connection.receive(5)
    except (bw.ConnectionClosed, bw.Goodbye):
        connection.socket.close()


# Declarations.


@check("A queue is declared once; again with the same options is done, with others says which differ")
def declarations(scene):
    name = f"{RUN}-declared"
    created, summary, _ = scene.connection.declare_queue(name, replicas=3)[:3]
    scene.declared.append(name)
    equal((created, summary[0]), (True, name), "the first answer")
    equal(len(summary[1]), 16, "the length of the queue's identity")
    again, same = scene.connection.declare_queue(name, replicas=3)[:2]
    equal((again, same[1]), (False, summary[1]), "the second answer")
    error = refused(OPTIONS_DIFFER, scene.connection.declare_queue, name, 1)
    expect("replicas" in str(error), f"{str(error)!r} does not say that the replicas differ")
    refused(INVALID_OPTION, scene.connection.declare_queue, f"{RUN}-none", 0)
    refused(INVALID_OPTION, scene.connection.declare_queue, f"{RUN}-eight", 8)
    refused(TOO_FEW_BROKERS, scene.connection.declare_queue, f"{RUN}-seven", 7, None, True)


@check("Unknown queues and exchanges are refused by name")
def unknown(scene):
    name = f"{RUN}-unknown"
    for do, arguments in [
        (scene.connection.describe_queue, [name]),
        (scene.connection.purge_queue, [name]),
        (scene.connection.delete_queue, [name]),
        (scene.connection.attach_consumer, [name]),
    ]:
        error = refused(NO_SUCH_QUEUE, do, *arguments)
        expect(name in str(error), f"{str(error)!r} does not name {name!r}")
    refused(NO_SUCH_EXCHANGE, scene.connection.delete_exchange, name)
    refused(NO_SUCH_EXCHANGE, scene.connection.bind, name, scene.queue("bound"))
    exchange = scene.exchange("bindable", bw.DIRECT)
    refused(NO_SUCH_QUEUE, scene.connection.bind, exchange, name)


@check("Queues are listed in order of name, a page at a time")
def listing(scene):
    names = [scene.queue(f"page-{letter}") for letter in "abc"]
    seen, after = [], None
    while page := scene.connection.queues(after, 2):
        seen += page
        after = page[-1]
    equal(seen, sorted(seen), "the order")
    expect(set(names) <= set(seen), f"{names} are not all among {seen}")


@check("Exchanges and bindings are declared, listed and deleted; the default exchange is reserved")
def topology(scene):
    connection = scene.connection
    exchange, queue = scene.exchange("topology", bw.DIRECT), scene.queue("topology")
    connection.declare_exchange(exchange, bw.DIRECT)
    refused(OPTIONS_DIFFER, connection.declare_exchange, exchange, bw.FANOUT)
    equal(connection.exchanges().get(exchange), bw.DIRECT, "its kind")
    equal(list(connection.exchanges().items())[0], ("", bw.DIRECT), "the first exchange")
    for _ in range(2):
        connection.bind(exchange, queue, "key")
    equal(connection.bindings(queue), [(exchange, queue, "key")], "the bindings")
    refused(IN_USE, connection.delete_exchange, exchange, True)
    for _ in range(2):
        connection.unbind(exchange, queue, "key")
    equal(connection.bindings(queue), [], "the bindings")
    refused(NOT_ALLOWED, connection.declare_exchange, "", bw.DIRECT)
    refused(NOT_ALLOWED, connection.delete_exchange, "")
    refused(NOT_ALLOWED, connection.bind, "", queue, "key")


# Publishing.


@check("A message is confirmed once every queue it was routed to has it; a direct exchange routes by key, a fanout to all")
def routing(scene):
    connection = scene.connection
    direct, fanout = scene.exchange("direct", bw.DIRECT), scene.exchange("fanout", bw.FANOUT)
    red, blue = scene.queue("red"), scene.queue("blue")
    for queue, key in [(red, "red"), (blue, "blue"), (blue, "both"), (red, "both")]:
        connection.bind(direct, queue, key)
    connection.bind(fanout, red)
    connection.bind(fanout, blue, "ignored")
    producer = connection.attach_producer(f"{RUN}-router")
    connection.publish(producer, 1, direct, "red", [b"1"])
    connection.publish(producer, 2, direct, "both", [b"2", b"3"])
    connection.publish(producer, 4, fanout, "whatever", [b"4"])
    connection.publish(producer, 5, "", blue, [b"5"])
    connection.publish(producer, 6, direct, "nobody", [b"dropped"])
    connection.confirm(producer, 1, 6)
    equal(scene.counts(red)["enqueued"], 4, "messages in red")
    equal(scene.counts(blue)["enqueued"], 4, "messages in blue")


@check("A publish to an unknown exchange or queue is refused, and what follows waits until the client has gone back")
def publish_refused(scene):
    connection, queue = scene.connection, scene.queue("refused")
    producer = connection.attach_producer(f"{RUN}-refused")
    connection.publish(producer, 1, f"{RUN}-unknown", "", [b"1", b"2"])
    refused(NO_SUCH_EXCHANGE, connection.confirm, producer, 1, 2)
    connection.failed.clear()
    connection.publish(producer, 3, "", f"{RUN}-unknown", [b"3"])
    try:
        connection.confirm(producer, 3, 3)
    except bw.BrokerError as error:
        if error.code == OUT_OF_SEQUENCE:
            connection.publish(producer, 3, "", f"{RUN}-unknown", [b"3"])
            error = refused(NO_SUCH_QUEUE, connection.confirm, producer, 3, 3)
        equal(error.code, NO_SUCH_QUEUE, "the code")
    # Given up: the next number is the lowest that is left. It may take one more try.
    for _ in range(2):
        connection.publish(producer, 4, "", queue, [b"4"])
        try:
            connection.confirm(producer, 4, 4)
            break
        except bw.BrokerError as error:
            equal(error.code, OUT_OF_SEQUENCE, f"the code of {str(error)!r}")
    equal(scene.counts(queue)["enqueued"], 1, "messages stored")
    unattached = 4_000_000
    connection.publish(unattached, 1, "", queue, [b"1"])
    refused(NO_SUCH_PRODUCER, connection.confirm, unattached, 1, 1)


@check("A message over the size limit is refused, and one of the largest size is taken")
def sizes(scene):
    connection, queue = scene.connection, scene.queue("sizes")
    limit = connection.message_bytes_max
    largest = os.urandom(1024) * (limit // 1024) + bytes(limit % 1024)
    producer = connection.attach_producer()
    connection.publish(producer, 1, "", queue, [largest + b"!"])
    refused(MESSAGE_TOO_LARGE, connection.confirm, producer, 1, 1)
    connection.pump(lambda: connection.credit[producer][1] > len(largest), what="credit for more")
    connection.publish(producer, 2, "", queue, [largest])
    connection.confirm(producer, 2, 2)
    at_leader = scene.leader(queue)
    at_leader.attach_consumer(queue, 1, 1)
    expect(at_leader.take(1)[0].body == largest, "the largest message came back changed")


@check("A retry of the same name and number is confirmed and stored once, also on a new connection and at another broker")
def retries(scene):
    queue, name = scene.queue("retries"), f"{RUN}-retries"
    producer = scene.connection.attach_producer(name)
    scene.connection.publish(producer, 1, "", queue, [b"1", b"2", b"3"])
    scene.connection.confirm(producer, 1, 3)
    scene.connection.detach_producer(producer)
    for address in sorted(scene.connection.brokers.values()):
        connection = scene.connect(address)
        producer = connection.attach_producer(name, 2)
        connection.publish(producer, 2, "", queue, [b"2", b"3"], resent=True)
        connection.confirm(producer, 2, 3)
    connection.publish(producer, 3, "", queue, [b"3", b"4"], resent=True)
    connection.confirm(producer, 3, 4)
    equal(scene.counts(queue)["enqueued"], 4, "messages stored")


@check("Flow is by cumulative credit; what goes beyond it is refused with CreditExceeded")
def credit(scene):
    connection, queue = scene.connection, scene.queue("credit")
    producer = connection.attach_producer()
    granted = connection.credit[producer][0]
    expect(granted >= 1, f"credit for {granted} messages")
    sent = 0
    while sent < granted + 1000:
        connection.pump(lambda: connection.credit[producer][0] > sent, what="more credit")
        count = min(connection.credit[producer][0] - sent, 1000)
        connection.publish(producer, sent + 1, "", queue, [b"x"] * count)
        sent += count
    connection.confirm(producer, 1, sent)
    equal(scene.counts(queue)["enqueued"], sent, "messages stored")


# Consuming.


@check("Only the leader takes consumers; elsewhere NotLeader names it")
def redirects(scene):
    queue = scene.queue("led")
    leader = scene.leader(queue)
    others = [address for broker, address in leader.brokers.items() if broker != leader.broker]
    for address in others:
        error = refused(NOT_LEADER, scene.connect(address).attach_consumer, queue)
        expect(error.leader is not None, "NotLeader does not name the leader")
        equal(error.leader[0], leader.broker, "the leader that was named")


@check("Deliveries come in the order of offsets, with body, headers and address as published, and never beyond the prefetch")
def deliveries(scene):
    queue = scene.queue("delivered")
    headers = {"text": "ä", "number": -5, "large": 2**40, "list": [True, None, 1.5], "bytes": b"\x00\xff"}
    messages = [(headers, b"with headers"), (None, b"")] + [b"body %d" % number for number in range(8)]
    producer = scene.connection.attach_producer()
    scene.connection.publish(producer, 1, "", queue, messages)
    scene.connection.confirm(producer, 1, 10)
    connection = scene.leader(queue)
    consumer, epoch = connection.attach_consumer(queue, prefetch=4)
    taken = connection.take(4)
    connection.idle(0.2)
    equal(len(connection.deliveries), 0, "deliveries beyond a prefetch of 4")
    equal(scene.counts(queue)["delivered"], 4, "messages held")
    equal((taken[0].headers, taken[0].body, taken[1].body), (headers, b"with headers", b""), "what was published")
    equal({(taken[0].exchange, taken[0].routing_key)}, {("", queue)}, "where it was published to")
    equal({delivery.epoch for delivery in taken}, {epoch}, "the epoch")
    expect(abs(taken[0].time_ms / 1000 - time.time()) < 300, f"the time is {taken[0].time_ms}")
    connection.settle(bw.ACK, taken)
    taken += connection.take(4)
    connection.settle(bw.ACK, taken[4:])
    taken += connection.take(2)
    offsets = [delivery.offset for delivery in taken]
    equal(offsets, sorted(set(offsets)), "the order")
    equal([delivery.redelivered for delivery in taken], [False] * 10, "the marks")


@check("Ack and reject end a message; return puts it back to its place, one return higher and marked")
def settlements(scene):
    queue = scene.queue("settled")
    scene.publish(queue, b"ack", b"reject", b"return", b"keep")
    connection = scene.leader(queue)
    connection.attach_consumer(queue)
    ack, reject, back, keep = connection.take(4)
    connection.settle(bw.ACK, [ack])
    connection.settle(bw.REJECT, [reject])
    connection.settle(bw.RETURN, [back])
    again = connection.take(1)[0]
    equal((again.offset, again.body, again.returns, again.redelivered), (back.offset, b"return", 1, True), "what came back")
    counts = scene.counts(queue)
    equal((counts["settled"], counts["delivered"], counts["ready"]), (2, 2, 0), "settled, delivered and ready")
    connection.settle(bw.ACK, [again, keep])
    equal(scene.counts(queue)["settled"], 4, "settled")


@check("A settle is all or nothing: what the consumer does not hold in that epoch is Stale, and nothing is settled")
def stale(scene):
    queue = scene.queue("stale")
    scene.publish(queue, b"1", b"2")
    connection = scene.leader(queue)
    consumer, epoch = connection.attach_consumer(queue)
    first, second = connection.take(2)
    connection.settle(bw.ACK, [first])
    refused(STALE, connection.settle, bw.ACK, [first])
    refused(STALE, connection.settle, bw.ACK, [first, second])
    refused(STALE, connection.settle_ranges, consumer, epoch + 1, bw.ACK, [[second.offset, second.offset + 1]])
    equal(scene.counts(queue)["settled"], 1, "settled")
    connection.settle(bw.ACK, [second])
    refused(NO_SUCH_CONSUMER, connection.settle_ranges, 4_000_000, epoch, bw.ACK, [[0, 1]])


@check("What a consumer held when it was detached or lost goes back, and comes again marked, with the same offsets")
def coming_back(scene):
    queue = scene.queue("back")
    scene.publish(queue, b"1", b"2")
    connection = scene.leader(queue)
    consumer, _ = connection.attach_consumer(queue)
    offsets = [delivery.offset for delivery in connection.take(2)]
    connection.detach_consumer(consumer)
    scene.until(queue, ready=2, delivered=0)
    address = connection.brokers[connection.broker]
    lost = bw.Connection(address)
    lost.attach_consumer(queue)
    equal([delivery.offset for delivery in lost.take(2)], offsets, "the offsets after a detach")
    lost.socket.close()
    scene.until(queue, ready=2, delivered=0)
    connection.attach_consumer(queue)
    again = connection.take(2)
    equal([(delivery.offset, delivery.redelivered) for delivery in again],
          [(offset, True) for offset in offsets], "what came again")
    refused(INVALID_OPTION, connection.attach_consumer, queue, 0)


@check("A purge removes what no consumer holds, and says how many there were")
def purging(scene):
    queue = scene.queue("purged")
    scene.publish(queue, b"held", b"1", b"2")
    connection = scene.leader(queue)
    connection.attach_consumer(queue, prefetch=1)
    held = connection.take(1)
    equal(connection.purge_queue(queue), 2, "messages purged")
    connection.settle(bw.ACK, held)
    counts = scene.counts(queue)
    equal((counts["purged"], counts["settled"], counts["ready"]), (2, 1, 0), "purged, settled and ready")


@check("A queue in use is not deleted when that was asked for; deleted, it closes its consumers, and a new one of its name is empty")
def deleting(scene):
    queue = scene.queue("deleted")
    scene.publish(queue, b"1")
    connection = scene.leader(queue)
    refused(IN_USE, connection.delete_queue, queue, False, True)
    consumer, _ = connection.attach_consumer(queue)
    refused(IN_USE, connection.delete_queue, queue, True, False)
    identity = connection.describe_queue(queue)[0]["id"]
    connection.delete_queue(queue)
    connection.pump(lambda: consumer in connection.closed, what="ConsumerClosed")
    equal(connection.closed[consumer].code, NO_SUCH_QUEUE, "why the consumer was closed")
    scene.connection.declare_queue(queue)
    counts = scene.counts(queue)
    equal(counts["enqueued"], 0, "messages in a new queue of that name")
    expect(scene.leader(queue).describe_queue(queue)[0]["id"] != identity, "the new queue has the old one's identity")


def run(address):
    failures = 0
    for sentence, function in CHECKS:
        started = time.monotonic()
        scene = None
        try:
            scene = Scene(address)
            function(scene)
            scene.leave()
        except Exception as problem:  # Whatever it is: it is shown, and the next check is tried.
            failures += 1
            print(f"FAILED  {sentence}")
            where = traceback.extract_tb(problem.__traceback__)
            line = next((frame.lineno for frame in reversed(where) if frame.filename == __file__ and frame.name == function.__name__), "?")
            print(f"        {type(problem).__name__}: {problem} ({function.__name__}, line {line})")
            if scene:
                for connection in scene.opened:
                    connection.socket.close()
        else:
            print(f"ok      {sentence} ({(time.monotonic() - started) * 1000:.0f} ms)")
        sys.stdout.flush()
    print(f"{len(CHECKS) - failures} of {len(CHECKS)} checks held at {address}")
    return 1 if failures else 0


if __name__ == "__main__":
    if len(sys.argv) not in (2, 4) or ":" not in sys.argv[1]:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    sys.exit(run(sys.argv[1]))
