#!/usr/bin/env python3
"""Raw HTTP cases for the router: exact bytes of a client, exact bytes of a dyno, judged at both ends.

  cases.py backend                          the web process: plays the dyno of each case
  cases.py run ROUTER HOST [PART PARTS]     the client and judge; prints what is wrong, line by line

`cases.json` holds the cases: `id`, `title`, `why`, `source`, `tags`, `level`, and
  client  list of steps on one raw TCP connection to the router
  backend list of scripts, one for each request that reaches the dyno in this run (the last one repeats)
  accept  list of alternatives; the case passes if any one of them holds completely
  probe   true (default): afterwards 3 plain requests must each get their own answer
Steps (client): {"send": text} latin-1 with {host} {HOSTUP} {case} {run} filled in; {"fill": [text, count]};
  {"wait_status": n} reads until a head with that status, or any final one; {"sleep": s};
  {"read_until": text, "within": s}; {"half_close": true}; {"close": true}
Steps (backend): {"read": "head"} (always first), {"read": "request"}, {"read_body": n}, {"send": text},
  {"fill": [text, count]}, {"sleep": s}, {"echo": true} (raw bytes until the end), {"read_for": s}, {"close": true}
  {"reply": true} (the stock 200 that names its run).  Text may use {run} {case}.
Expectations (all optional):
  status      [200] or [[200,204]]: the final answers in order, each a code or a list of codes
  max_final   at most that many final answers
  interim     [100]: interim codes that must have been seen;  no_interim: true
  body        exact body of the first final answer;  body_len; body_re
  complete    true|false: the first final answer is complete by its own framing
  closed      true|false: the router closed the connection soon after the last answer
  r_has / r_lacks      patterns (multi-line, any case) on the first final answer's head
  raw_has / raw_lacks  patterns on everything the client received
  seen        number of requests the dyno parsed for this run (or list of allowed numbers)
  b_has / b_lacks      patterns on the head of the first request the dyno saw
  b2_has               the same on the second
  b_body / b_body_len / b_complete   body of the first request as the dyno framed it
  cs_b_has / cs_r_has  like b_has / r_has, letter case matters
  b_event     the dyno noted this: eof (its peer closed), tunnel-eof, backend-close
  marks       true: every read_until was met in time;  left: exact bytes after the last answer
  b_raw_lacks          patterns on every byte the dyno received in this run
  within      the first final answer came within that many seconds
  no_reply    true: no final answer at all (silent close)
"""
import base64
import json
import os
import re
import select
import socket
import sys
import threading
import time

LAT = 'latin-1'


# ------------------------------------------------------------------ backend
class Rec:
    def __init__(self):
        self.lock = threading.Lock()
        self.runs = {}

    def run(self, token):
        with self.lock:
            return self.runs.setdefault(token, {'requests': [], 'raw': [], 'events': []})


def clip(b, n=65536):
    return b if len(b) <= n else b[:n // 2] + b'...[clipped]...' + b[-n // 2:]


class Backend:
    TOK = re.compile(rb'/(?:c|smuggled)/([A-Za-z0-9_.-]+)/([0-9a-f]{8,})')

    def __init__(self, cases, port, host='0.0.0.0'):
        self.cases = {c['id']: c for c in cases}
        self.rec = Rec()
        self.s = socket.socket()
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.s.bind((host, port))
        self.s.listen(512)

    def serve(self):
        n = 0
        while True:
            try:
                c, _ = self.s.accept()
            except OSError:
                return
            n += 1
            threading.Thread(target=self.conn, args=(c, n), daemon=True).start()

    def conn(self, c, cid):
        try:
            c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            BConn(self, c, cid).loop()
        except (OSError, EOFError):
            pass
        finally:
            try:
                c.close()
            except OSError:
                pass


class BConn:
    def __init__(self, b, c, cid):
        self.b, self.c, self.cid, self.buf, self.run, self.case, self.rawidx = b, c, cid, b'', None, None, None

    def note(self, data):
        if self.run is not None:
            r = self.b.rec.run(self.run)
            with self.b.rec.lock:
                if self.rawidx is None:
                    r['raw'].append(b'')
                    self.rawidx = len(r['raw']) - 1
                r['raw'][self.rawidx] = clip(r['raw'][self.rawidx] + data, 262144)

    def event(self, what):
        if self.run is not None:
            with self.b.rec.lock:
                self.b.rec.runs[self.run]['events'].append([round(time.time(), 3), self.cid, what])

    def more(self, timeout=20):
        self.c.settimeout(timeout)
        d = self.c.recv(65536)
        if not d:
            self.event('eof')
            raise EOFError
        self.note(d)
        self.buf += d

    def head(self):
        while b'\r\n\r\n' not in self.buf:
            if len(self.buf) > 4 << 20:
                raise EOFError
            # a lone LF-terminated head is also taken, so that what leaks through is recorded
            if b'\n\n' in self.buf:
                break
            self.more(65)
        i = self.buf.find(b'\r\n\r\n')
        j = self.buf.find(b'\n\n')
        if i < 0 or (0 <= j < i):
            h, self.buf = self.buf[:j + 2], self.buf[j + 2:]
        else:
            h, self.buf = self.buf[:i + 4], self.buf[i + 4:]
        return h

    def body(self, req):
        """Reads the body by strict RFC 9112 rules; sets req['complete']."""
        h = req['head']
        te = [v.strip().lower() for v in re.findall(rb'(?im)^transfer-encoding:[ \t]*(.*?)[ \t]*\r?$', h)]
        cl = [v.strip() for v in re.findall(rb'(?im)^content-length:[ \t]*(.*?)[ \t]*\r?$', h)]
        req['body'] = b''
        req['blen'] = 0
        try:
            if te:
                while True:
                    while b'\r\n' not in self.buf:
                        self.more()
                    line, self.buf = self.buf.split(b'\r\n', 1)
                    n = int(re.match(rb'[0-9a-fA-F]+', line).group(0), 16)
                    if n == 0:
                        while True:
                            while b'\r\n' not in self.buf:
                                self.more()
                            t, self.buf = self.buf.split(b'\r\n', 1)
                            if not t:
                                break
                            req['trailers'] = req.get('trailers', b'') + t + b'\n'
                        break
                    while len(self.buf) < n + 2:
                        self.more()
                    req['body'] = clip(req['body'] + self.buf[:n])
                    req['blen'] += n
                    self.buf = self.buf[n + 2:]
                req['complete'] = True
            elif cl:
                n = int(cl[0])
                left = n
                while left:
                    if not self.buf:
                        self.more()
                    k = self.buf[:left]
                    self.buf = self.buf[len(k):]
                    left -= len(k)
                    req['blen'] += len(k)
                    req['body'] = clip(req['body'] + k)
                req['complete'] = True
            else:
                req['complete'] = True
        except (EOFError, OSError):
            req['complete'] = False
            raise
        except (ValueError, AttributeError):
            req['complete'] = False
            req['bad'] = True
            raise EOFError

    def loop(self):
        while True:
            h = self.head()
            line = h.split(b'\n', 1)[0]
            m = re.match(rb'\S+ \S*/__observed/([0-9a-f]+)', line)
            if m:
                self.observed(m.group(1).decode())
                continue
            m = self.b.TOK.search(line) or self.b.TOK.search(h)
            if m:
                case, run = m.group(1).decode(), m.group(2).decode()
                if run != self.run:
                    self.run, self.case, self.rawidx = run, case, None
                    self.b.rec.run(run)
                    self.note(h + self.buf)
            if self.run is None:
                self.run = 'ffffffff'
                self.b.rec.run(self.run)
            req = {'head': h, 'conn': self.cid, 'complete': False, 'body': b'', 'blen': 0, 't': time.time()}
            r = self.b.rec.run(self.run)
            with self.b.rec.lock:
                idx = len(r['requests'])
                r['requests'].append(req)
            spec = self.b.cases.get(self.case, {}).get('backend') or []
            script = spec[min(idx, len(spec) - 1)] if spec else [{'read': 'request'}, {'reply': True}]
            if isinstance(script, dict):
                script = script['steps']
            if not self.play(script, req):
                return
            if not req['complete'] and not req.get('raw_mode'):
                self.body(req)  # script answered early: drain what is left, so framing stays known

    def play(self, script, req):
        """Returns False when the connection is done."""
        for st in script:
            if st.get('read') == 'request':
                self.body(req)
            elif 'read_body' in st:
                while len(self.buf) < st['read_body']:
                    self.more()
                req['body'] = self.buf[:st['read_body']]
            elif 'send' in st:
                t = st['send'].replace('{run}', self.run or '').replace('{case}', self.case or '')
                self.c.sendall(t.encode(LAT))
            elif 'fill' in st:
                self.c.sendall((st['fill'][0] * st['fill'][1]).encode(LAT))
            elif 'sleep' in st:
                time.sleep(st['sleep'])
            elif st.get('reply'):
                b = b'ok:' + (self.run or '').encode() + b'\n'
                hd = b'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n' % len(b)
                self.c.sendall(hd + (b'' if req['head'].startswith(b'HEAD ') else b))
            elif st.get('echo'):
                req['raw_mode'] = True
                req['complete'] = True
                d, self.buf = self.buf, b''
                while True:
                    if d:
                        self.c.sendall(d)
                    self.c.settimeout(20)
                    d = self.c.recv(65536)
                    if not d:
                        self.event('tunnel-eof')
                        return False
                    self.note(d)
            elif 'read_for' in st:
                end = time.time() + st['read_for']
                try:
                    while time.time() < end:
                        self.more(max(0.01, end - time.time()))
                except socket.timeout:
                    pass
            elif st.get('half_close'):
                self.c.shutdown(socket.SHUT_WR)
            elif st.get('close'):
                self.event('backend-close')
                try:
                    self.c.shutdown(socket.SHUT_WR)
                    if not st.get('hard'):
                        self.c.settimeout(0.3)
                        while self.c.recv(65536):
                            pass
                except OSError:
                    pass
                return False
        return True

    def observed(self, run):
        with self.b.rec.lock:
            r = self.b.rec.runs.get(run, {'requests': [], 'raw': [], 'events': []})
            out = {'requests': [{k: (v.decode(LAT) if isinstance(v, bytes) else v) for k, v in q.items()} for q in r['requests']],
                   'raw': [x.decode(LAT) for x in r['raw']], 'events': r['events']}
        b = base64.b64encode(json.dumps(out).encode())
        self.c.sendall(b'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Observed: 1\r\nContent-Length: %d\r\n\r\n' % len(b) + b)


# ------------------------------------------------------------------ client side
class Resp:
    def __init__(self, head):
        self.head, self.body, self.complete = head, b'', False
        m = re.match(rb'HTTP/\d\.\d (\d{3})', head)
        self.status = int(m.group(1)) if m else 0
        self.proto = head[:8]


def parse(data, methods, eof):
    """Strict-enough response parser. Returns (responses, leftover)."""
    out = []
    mi = 0
    while data:
        if not data.startswith(b'HTTP/'):
            break
        i = data.find(b'\r\n\r\n')
        if i < 0:
            break
        r = Resp(data[:i + 4])
        data = data[i + 4:]
        out.append(r)
        if 100 <= r.status < 200:
            r.complete = True
            if r.status == 101:
                r.body, data = data, b''
                return out, b''
            continue
        meth = methods[mi] if mi < len(methods) else 'GET'
        mi += 1
        cl = re.findall(rb'(?im)^content-length:[ \t]*(\d+)[ \t]*\r$', r.head)
        te = re.search(rb'(?im)^transfer-encoding:.*chunked', r.head)
        if meth == 'HEAD' or r.status in (204, 304):
            r.complete = True
        elif te:
            ok = False
            while True:
                j = data.find(b'\r\n')
                if j < 0:
                    break
                m = re.match(rb'[0-9a-fA-F]+', data[:j])
                if not m:
                    break
                n = int(m.group(0), 16)
                if n == 0:
                    k = data.find(b'\r\n\r\n', j)
                    if k >= 0:
                        data = data[k + 4:]
                        ok = True
                    break
                if len(data) < j + 2 + n + 2:
                    r.body += data[j + 2:j + 2 + n]
                    data = b''
                    break
                r.body += data[j + 2:j + 2 + n]
                data = data[j + 2 + n + 2:]
            r.complete = ok
            if not ok:
                return out, data
        elif cl:
            n = int(cl[0])
            r.body, data = data[:n], data[n:]
            r.complete = len(r.body) == n
            if not r.complete:
                return out, data
        else:
            r.body, data = data, b''
            r.complete = eof
    return out, data


class Runner:
    def __init__(self, router, host):
        address, port = router.rsplit(':', 1)
        self.addr = (address, int(port))
        self.vhost = host

    def connect(self):
        s = socket.create_connection(self.addr, 5)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def simple(self, path, timeout=5):
        s = self.connect()
        s.settimeout(timeout)
        try:
            s.sendall(f'GET {path} HTTP/1.1\r\nHost: {self.vhost}\r\nX-Request-Id: probe-probe-probe-probe-0000\r\n\r\n'.encode())
            d = b''
            eof = False
            end = time.time() + timeout
            while time.time() < end:
                try:
                    x = s.recv(262144)
                except (socket.timeout, ConnectionResetError):
                    break
                if not x:
                    eof = True
                d += x
                rs, _ = parse(d, ['GET'], eof)
                if [r for r in rs if r.status >= 200 and r.complete]:
                    return [r for r in rs if r.status >= 200][0]
                if eof:
                    break
            return None
        finally:
            s.close()

    def observed(self, run):
        for _ in range(3):
            r = self.simple(f'/__observed/{run}')
            if r and r.status == 200 and b'observed' in r.head.lower():
                return json.loads(base64.b64decode(r.body))
            time.sleep(0.1)
        return None

    def one(self, c):
        run = os.urandom(6).hex()
        sub = lambda t: t.replace('{host}', self.vhost).replace('{HOSTUP}', self.vhost.upper()).replace('{run}', run).replace('{case}', c['id']).encode(LAT)
        got = b''
        eof = False
        rst = False
        t0 = time.time()
        first = None
        methods = c.get('methods') or ['HEAD' if (c['client'] and c['client'][0].get('send', '').startswith('HEAD ')) else 'GET']
        s = self.connect()

        def pull(timeout):
            nonlocal got, eof, rst, first
            if eof:
                return False
            r, _, _ = select.select([s], [], [], max(0, timeout))
            if not r:
                return False
            try:
                d = s.recv(262144)
            except OSError:
                eof = rst = True
                return False
            if not d:
                eof = True
                return False
            got += d
            if first is None and [x for x in parse(got, methods, eof)[0] if x.status >= 200]:
                first = time.time() - t0
            return True

        marks = []
        closed_by_us = False

        def push(data):
            # send while draining what comes back: a router that answers early must not deadlock us
            nonlocal rst, eof
            off = 0
            s.setblocking(False)
            end = time.time() + 15
            try:
                while off < len(data) and time.time() < end:
                    r, w, _ = select.select([s] if not eof else [], [s], [], 1)
                    if r:
                        pull(0)
                        if eof:
                            break
                    if w:
                        try:
                            off += s.send(data[off:off + 65536])
                        except BlockingIOError:
                            pass
            except OSError:
                rst = True
            s.setblocking(True)

        for st in c['client']:
            if 'send' in st:
                push(sub(st['send']))
            elif 'fill' in st:
                push(st['fill'][0].encode(LAT) * st['fill'][1])
            elif 'sleep' in st:
                end = time.time() + st['sleep']
                while time.time() < end and not eof:
                    pull(end - time.time())
            elif 'wait_status' in st:
                end = time.time() + st.get('within', 3)
                while time.time() < end and not eof:
                    rs, _ = parse(got, methods, eof)
                    if [r for r in rs if r.status == st['wait_status'] or r.status >= 200]:
                        break
                    pull(end - time.time())
            elif 'read_until' in st:
                end = time.time() + st.get('within', 3)
                while time.time() < end and not eof and st['read_until'].encode(LAT) not in got:
                    pull(end - time.time())
                marks.append(st['read_until'].encode(LAT) in got)
            elif st.get('half_close'):
                try:
                    s.shutdown(socket.SHUT_WR)
                except OSError:
                    pass
            elif st.get('close'):
                s.close()
                closed_by_us = True
                eof = True
                break
        want = max([len(al.get('status', [])) for al in c['accept']] + [1])
        settle = c.get('settle', 0.6)
        end = time.time() + c.get('wait', 4.0)
        while time.time() < end and not eof:
            rs, _ = parse(got, methods, eof)
            fin = [r for r in rs if r.status >= 200 or r.status == 101]
            if len(fin) >= want and fin[-1].complete:
                break
            pull(min(0.25, end - time.time()))
        # settle: extra bytes, or a close
        end = time.time() + settle
        while time.time() < end and not eof:
            pull(end - time.time())
        closed = eof and not closed_by_us
        if not closed_by_us:
            s.close()
        time.sleep(c.get('after', 0.05))
        rs, left = parse(got, methods, True if eof else False)
        obs = self.observed(run)
        bad = []
        if obs is None:
            bad = ['set-up: the record could not be read back (router or backend not answering)']
            obs = {'requests': [], 'raw': [], 'events': []}
        fails = []
        ok = False
        for al in c['accept']:
            f = self.judge(al, rs, got, left, closed, obs, first, marks)
            if not f:
                ok = True
                break
            fails.append(f)
        if c.get('probe', True):
            for i in range(3):
                t = os.urandom(6).hex()
                r = self.simple(f'/c/probe/{t}')
                if not r or r.status != 200 or r.body != b'ok:' + t.encode() + b'\n':
                    bad.append('probe %d after the case got a wrong answer: %s' % (i, (r.status, r.body[:60]) if r else None))
                    break
        if bad:
            ok = False
            fails.append(bad)
        return {'id': c['id'], 'level': c['level'], 'ok': ok, 'fails': fails, 'got': clip(got, 1500).decode(LAT), 'obs': obs, 'closed': closed,
                'codes': [r.status for r in rs], 'secs': round(time.time() - t0, 2)}

    def judge(self, al, rs, got, left, closed, obs, first, marks):
        f = []
        fin = [r for r in rs if r.status >= 200 or r.status == 101]
        inter = [r.status for r in rs if 100 <= r.status < 200 and r.status != 101]
        q = obs['requests']
        for k, v in al.items():
            if k == 'status':
                if len(fin) < len(v) or any((fin[i].status not in (v[i] if isinstance(v[i], list) else [v[i]])) for i in range(len(v))):
                    f.append(f'status {[r.status for r in fin]} wanted {v}')
                elif 'max_final' not in al and len(fin) > len(v):
                    f.append(f'extra responses {[r.status for r in fin]}')
            elif k == 'max_final':
                if len(fin) > v:
                    f.append(f'{len(fin)} final responses, at most {v}')
            elif k == 'no_reply':
                if fin:
                    f.append(f'got {[r.status for r in fin]}, wanted none')
            elif k == 'interim':
                if any(x not in inter for x in v):
                    f.append(f'interim {inter} wanted {v}')
            elif k == 'no_interim':
                if inter:
                    f.append(f'interim {inter} not wanted')
            elif k == 'body':
                if not fin or fin[0].body.decode(LAT) != v:
                    f.append(f'body {fin[0].body[:80] if fin else None!r} wanted {v[:80]!r}')
            elif k == 'body_len':
                if not fin or len(fin[0].body) != v:
                    f.append(f'body length {len(fin[0].body) if fin else None} wanted {v}')
            elif k == 'body_re':
                if not fin or not re.search(v, fin[0].body.decode(LAT), re.S):
                    f.append(f'body does not match {v}')
            elif k == 'complete':
                if bool(fin and fin[0].complete) != v:
                    f.append(f'complete={bool(fin and fin[0].complete)} wanted {v}')
            elif k == 'closed':
                if closed != v:
                    f.append(f'closed={closed} wanted {v}')
            elif k in ('r_has', 'r_lacks'):
                h = fin[0].head.decode(LAT) if fin else ''
                for x in v:
                    if bool(re.search(x, h, re.I | re.M)) != (k == 'r_has'):
                        f.append(f'{k} {x}')
            elif k in ('raw_has', 'raw_lacks'):
                for x in v:
                    if bool(re.search(x, got.decode(LAT), re.I | re.M)) != (k == 'raw_has'):
                        f.append(f'{k} {x}')
            elif k == 'seen':
                if len(q) not in (v if isinstance(v, list) else [v]):
                    f.append(f'backend saw {len(q)} requests, wanted {v}')
            elif k in ('b_has', 'b_lacks', 'b2_has'):
                i = 1 if k == 'b2_has' else 0
                h = q[i]['head'] if len(q) > i else ''
                for x in v:
                    if k != 'b_lacks' and not re.search(x, h, re.I | re.M) or k == 'b_lacks' and re.search(x, h, re.I | re.M):
                        f.append(f'{k} {x}')
            elif k in ('cs_b_has', 'cs_r_has'):
                h = (q[0]['head'] if q else '') if k == 'cs_b_has' else (fin[0].head.decode(LAT) if fin else '')
                for x in v:
                    if not re.search(x, h, re.M):
                        f.append(f'{k} {x}')
            elif k == 'b_body':
                if not q or q[0]['body'] != v:
                    f.append(f'backend body {q[0]["body"][:80] if q else None!r} wanted {v[:80]!r}')
            elif k == 'b_body_len':
                if not q or q[0]['blen'] != v:
                    f.append(f'backend body length {q[0]["blen"] if q else None} wanted {v}')
            elif k == 'b_complete':
                if not q and v or q and bool(q[0]['complete']) != v:
                    f.append(f'backend request complete={q[0]["complete"] if q else None} wanted {v}')
            elif k == 'b_raw_lacks':
                for x in v:
                    if any(re.search(x, raw, re.I | re.M | re.S) for raw in obs['raw']):
                        f.append(f'b_raw_lacks {x}')
            elif k == 'b_event':
                if not any(e[2] == v for e in obs['events']):
                    f.append(f'backend event {v} not seen: {obs["events"]}')
            elif k == 'within':
                if first is None or first > v:
                    f.append(f'first final response after {first}, wanted within {v}')
            elif k == 'marks':
                if not all(marks):
                    f.append(f'read_until marks {marks}')
            elif k == 'left':
                if left.decode(LAT) != v:
                    f.append(f'left-over bytes {left[:60]!r}')
            elif k not in ('note',):
                f.append('unknown expectation ' + k)
        return f


def run(router, host, part=0, parts=1):
    runner = Runner(router, host)
    for case in CASES[int(part)::int(parts)]:
        try:
            result = runner.one(case)
        except OSError as error:
            result = {'ok': False, 'fails': [[repr(error)]], 'got': '', 'obs': {}, 'secs': 0}
        if result['ok']:
            print('pass', case['id'], result['secs'], flush=True)
            continue
        print('FAIL', case['id'], case['title'], '--', ' || '.join('; '.join(f) for f in result['fails']))
        print('   the client got', repr(result['got'][:600]))
        for q in result['obs'].get('requests', []):
            print('   the dyno got', repr(q['head'][:400]), repr(q['body'][:80]), q['complete'], flush=True)


with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'cases.json'), encoding='utf-8') as file:
    CASES = json.load(file)['cases']

if sys.argv[1] == 'backend':
    Backend(CASES, int(os.environ['PORT'])).serve()
else:
    run(*sys.argv[2:])
