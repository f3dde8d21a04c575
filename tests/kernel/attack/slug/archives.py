"""`archives.py FOLDER CANARY`: writes hostile slugs, and prints a line of JSON about each.

Headers are made by hand: no library writes what an attacker would. Each archive has the row it is
for, what must come of it (`refused` with words of the message, or `unpacked` with what a script
in a dyno of it prints), and `gnu` where it must unpack as GNU tar does or be refused.
"""

import gzip
import json
import os
import sys

folder, canary = sys.argv[1], os.fsencode(sys.argv[2])
canary_dir = os.path.dirname(canary)
END = bytes(1024)


def number(value, width):
    """Octal, or base-256 where octal cannot hold it."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return bytes([0xFF if value < 0 else 0x80]) + (value % 256 ** (width - 1)).to_bytes(width - 1, "big")


def header(name, kind=b"0", size=0, mode=0o644, uid=0, gid=0, link=b"", mtime=0, device=(0, 0), user=b"root"):
    block = bytearray(512)
    block[0:len(name)] = name
    block[100:108] = number(mode, 8)
    block[108:116] = number(uid, 8)
    block[116:124] = number(gid, 8)
    block[124:136] = number(size, 12)
    block[136:148] = number(mtime, 12)
    block[156:157] = kind
    block[157:157 + len(link)] = link
    block[257:265] = b"ustar\x0000"
    block[265:265 + len(user)] = user
    block[329:337] = number(device[0], 8)
    block[337:345] = number(device[1], 8)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data):
    return data + bytes(-len(data) % 512)


def entry(name, data=b"", kind=b"0", **more):
    return header(name, kind, len(data), **more) + padded(data)


def folder_entry(name, mode=0o755):
    return entry(name, kind=b"5", mode=mode)


def link(name, target, kind=b"2"):
    return entry(name, kind=kind, link=target, mode=0o777)


def pax(*records, kind=b"x"):
    data = b""
    for key, value in records:
        record = b" " + key + b"=" + value + b"\n"
        length = len(record)
        while len(b"%d" % length) + len(record) != length:
            length = len(b"%d" % length) + len(record)
        data += b"%d" % length + record
    return entry(b"app/pax", data, kind)


def long_name(name):
    return entry(b"././@LongLink", name + b"\0", b"L")


APP = folder_entry(b"app/")
GOOD = APP + entry(b"app/good", b"good\n")
known = set()


def put(row, name, data, refused=None, script=None, prints="", gnu=False, plain=False, packed=None):
    """`plain`: not gzip'd; `packed`: these bytes as they are."""
    name = f"{row}-{name}"
    assert name not in known, name
    known.add(name)
    if packed is None:
        packed = data if plain else gzip.compress(data, 1)
    with open(os.path.join(folder, name), "wb") as file:
        file.write(packed)
    print(json.dumps({"row": row, "name": name, "refused": refused, "script": script, "prints": prints, "gnu": gnu}))


def unpacks(row, name, data, script, prints, **more):
    put(row, name, data, script=script, prints=prints, **more)


LEAVES = "leaves the root"

put("S-01", "canary", GOOD + entry(canary, b"x") + END, LEAVES)
put("S-01", "below-app", GOOD + entry(b"/app/x", b"x") + END, LEAVES)
put("S-01", "double-slash", GOOD + entry(b"//app/x", b"x") + END, LEAVES)
put("S-01", "pax", GOOD + pax((b"path", canary)) + entry(b"app/x", b"x") + END, LEAVES)

for at, path in enumerate((b"../canary", b"app/../../canary", b"app/a/b/../../../../canary", b"app/..", b"./app/x/../../y")):
    put("S-02", f"path-{at}", GOOD + entry(path, b"x") + END, LEAVES)
    put("S-02", f"pax-{at}", GOOD + pax((b"path", path)) + entry(b"app/x", b"x") + END, LEAVES)
    put("S-02", f"gnu-{at}", GOOD + long_name(path) + entry(b"app/x", b"x") + END, LEAVES)
put("S-02", "long", GOOD + long_name(b"app/" + b"x/" * 60 + b"../" * 70 + b"canary") + entry(b"app/x", b"x") + END, LEAVES)

for at, target in enumerate((canary_dir, b"/", b"../..", b"/proc/1/root", b".")):
    put("S-03", f"link-{at}", GOOD + link(b"app/x", target) + entry(b"app/x/canary", b"x") + END, "cannot be written")
put("S-03", "chain", GOOD + link(b"app/x", b"y") + link(b"app/y", canary_dir) + entry(b"app/x/canary", b"x") + END, "cannot be written")

unpacks("S-04", "mode", GOOD + link(b"app/x", canary_dir) + entry(b"app/x", kind=b"5", mode=0o777, mtime=1) + END,
        "stat -c '%F %a' /app/x", "directory 777")
unpacks("S-04", "relative", GOOD + link(b"app/x", b"../..") + entry(b"app/x", kind=b"5", mode=0o777, mtime=1) + END,
        "stat -c '%F %a' /app/x", "directory 777")

for at, target in enumerate((canary, b"../" + canary, b"../canary", b"etc/passwd", b"app/none")):
    words = "cannot be written" if at > 2 else "links outside"
    put("S-05", f"hard-{at}", GOOD + link(b"app/h", target, b"1") + entry(b"app/h", b"x") + END, words)
unpacks("S-05", "inside", GOOD + link(b"app/h", b"app/good", b"1") + entry(b"app/h", b"other\n") + END,
        "cat /app/good /app/h", "good other")

put("S-06", "through", GOOD + link(b"app/s", canary) + link(b"app/h", b"app/s", b"1") + entry(b"app/h", b"x") + END, "cannot be written")
put("S-06", "parent", GOOD + link(b"app/s", canary_dir) + link(b"app/h", b"app/s/" + os.path.basename(canary), b"1") + END, "cannot be written")

for name, kind, device in (("memory", b"3", (1, 1)), ("disk", b"4", (8, 0)), ("fifo", b"6", (0, 0)), ("zero", b"3", (1, 5))):
    put("S-07", name, GOOD + entry(b"app/node", kind=kind, device=device, mode=0o666) + END, "device or a FIFO")
for kind in b"DMNVZ":
    put("S-07", f"kind-{kind:c}".replace(chr(kind), str(kind)), GOOD + entry(b"app/odd", kind=bytes([kind])) + END, "kind that a slug cannot hold")

unpacks("S-08", "bits", APP + entry(b"app/f", b"x", mode=0o6755) + folder_entry(b"app/d", 0o7777) + END,
        "stat -c %a /app/f /app/d", "755 777")
attributes = [(b"SCHILY.xattr." + name, value) for name, value in (
    (b"security.capability", b"\1\0\0\2\xff\xff\xff\xff\0\0\0\0\xff\1\0\0\0\0\0\0"), (b"trusted.overlay.opaque", b"y"),
    (b"trusted.overlay.redirect", b"/etc"), (b"user.overlay.opaque", b"y"), (b"user.overlay.whiteout", b"y"), (b"user.any", b"x"))]
unpacks("S-08", "attributes", APP + pax(*attributes) + entry(b"app/f", b"x") + pax(*attributes) + folder_entry(b"app/d") + END,
        "python3 -c 'import os; print(os.listxattr(\"/app/f\"), os.listxattr(\"/app/d\"))'", "[] []")
put("S-08", "whiteout", GOOD + entry(b"app/gone", kind=b"3") + END, "device or a FIFO")
unpacks("S-08", "names", GOOD + entry(b"app/.wh.good") + entry(b"app/.wh..wh..opq") + END, "ls -A /app", ".wh..wh..opq .wh.good good")

for name, uid in (("root", 0), ("octal", 2097151), ("huge", 4294967295), ("negative", -1), ("past", 2**62)):
    unpacks("S-09", name, APP + entry(b"app/f", b"x", uid=uid, gid=uid) + link(b"app/l", b"f") + END, "stat -c '%u %g' /app/f", "1000 1000")
unpacks("S-09", "pax", APP + pax((b"uid", b"0"), (b"gid", b"-5"), (b"uname", b"root")) + entry(b"app/f", b"x") + END,
        "stat -c '%u %g' /app/f", "1000 1000")

inner = entry(b"app/evil", b"evil\n")
for name, in_header, in_pax in (("pax-larger", 0, len(inner)), ("pax-smaller", len(inner), 0), ("pax-odd", len(inner), 512), ("both", len(inner), len(inner))):
    put("S-10", name, APP + pax((b"size", b"%d" % in_pax)) + header(b"app/f", size=in_header) + inner + entry(b"app/last", b"last\n") + END, gnu=True)
put("S-10", "twice", APP + pax((b"size", b"0"), (b"size", b"%d" % len(inner))) + header(b"app/f", size=0) + inner + entry(b"app/last", b"last\n") + END, gnu=True)
put("S-10", "link", APP + header(b"app/l", b"2", size=len(inner), link=b"f") + inner + entry(b"app/last", b"last\n") + END, gnu=True)
put("S-10", "folder", APP + header(b"app/d", b"5", size=len(inner)) + inner + entry(b"app/last", b"last\n") + END, gnu=True)
put("S-10", "no-number", APP + pax((b"size", b"-1")) + header(b"app/f", size=0) + inner + END, gnu=True)

zeros = gzip.compress(bytes(64 << 20), 1)
put("S-11", "declared", GOOD + header(b"app/big", size=10 << 30) + bytes(8 << 20) + END, "more than 4294967296 bytes")
put("S-11", "two", GOOD + header(b"app/a", size=3 << 20) + bytes(3 << 20) + header(b"app/b", size=4 << 30) + bytes(4 << 20), "more than 4294967296 bytes")
# The end, and then a stream that costs its maker nothing.
put("S-11", "behind-the-end", b"", "more than 4294967296 bytes", packed=gzip.compress(GOOD + END, 1) + zeros * 65)
nested = gzip.compress(GOOD + END, 1)
put("S-11", "nested", b"", "cannot be read", packed=gzip.compress(nested, 1))

few = b"".join(entry(b"app/many/%d" % n) for n in range(2000))
put("S-12", "entries", APP + few + folder_entry(b"app/many/") * 498_500 + END, "more than 500000 entries")

put("S-13", "deep", GOOD + long_name(b"app/" + b"d/" * 300 + b"f") + entry(b"app/x") + END, LEAVES)
put("S-13", "deeper", GOOD + long_name(b"app/" + b"d/" * 4096 + b"f") + entry(b"app/x") + END, LEAVES)
put("S-13", "name", GOOD + long_name(b"app/" + b"n" * 300) + entry(b"app/x") + END, LEAVES)
put("S-13", "path", GOOD + pax((b"path", b"app/" + (b"n" * 250 + b"/") * 20 + b"f")) + entry(b"app/x") + END, LEAVES)
unpacks("S-13", "longest", GOOD + long_name(b"app/" + b"d/" * 200 + b"f") + entry(b"app/x", b"deep") + END, "find /app -name f | wc -l", "1")
unpacks("S-13", "header-1M", GOOD + pax((b"comment", b"c" * (1 << 20))) + entry(b"app/x", b"x") + END, "cat /app/x", "x")
put("S-13", "header-100M", GOOD + pax((b"comment", b"c" * (100 << 20))) + entry(b"app/x", b"x") + END, "larger than", packed=None)

sparse = bytearray(header(b"app/s", b"S", size=512))
sparse[257:265] = b"ustar  \0"
sparse[386:398] = number(0, 12)
sparse[398:410] = number(512, 12)
sparse[410:422] = number(1 << 50, 12)
sparse[483:495] = number(1 << 50, 12)
sparse[148:156] = b" " * 8
sparse[148:156] = b"%06o\0 " % sum(sparse)
put("S-14", "gnu", GOOD + bytes(sparse) + bytes(512) + END, "sparse|cannot be read")
for minor in (b"0", b"1"):
    keys = ((b"GNU.sparse.major", minor), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"app/s"), (b"GNU.sparse.realsize", b"%d" % (1 << 50)),
            (b"GNU.sparse.size", b"%d" % (1 << 50)), (b"GNU.sparse.numblocks", b"1"), (b"GNU.sparse.map", b"0,1"))
    put("S-14", f"pax-{minor.decode()}", GOOD + pax(*keys) + entry(b"app/GNUSparseFile.0/s", b"1\n0\n1\n") + END, "sparse")

whole = gzip.compress(GOOD + END, 9)
unreadable = "cannot be read"
put("S-15", "cut-gzip", b"", unreadable, packed=whole[:-12])
put("S-15", "cut-in-header", (GOOD)[:700], "cannot be read|cut off", plain=True)
put("S-15", "cut-in-file", APP + header(b"app/f", size=4096) + b"x" * 600, "cannot be read|cut off", plain=True)
put("S-15", "no-end", GOOD, "cut off", plain=True)
put("S-15", "no-end-gzip", GOOD, "cut off")
put("S-15", "bad-checksum", GOOD + entry(b"app/x").replace(b"app/x", b"app/y", 1) + END, unreadable)
put("S-15", "bad-crc", b"", unreadable, packed=whole[:-8] + b"\0\0\0\0" + whole[-4:])
put("S-15", "no-bytes", b"", "cut off", packed=b"")
put("S-15", "no-entries", END, "empty")
put("S-15", "noise", b"", unreadable, packed=bytes(range(256)) * 8)
unpacks("S-15", "garbage-after", GOOD + END + b"garbage" * 999, "cat /app/good", "good", plain=True)
put("S-15", "garbage-after-gzip", b"", unreadable, packed=whole + b"garbage" * 99)
unpacks("S-15", "two-members", b"", "cat /app/good", "good", packed=gzip.compress(GOOD, 1) + gzip.compress(END, 1))

unpacks("S-16", "file-folder", APP + entry(b"app/x", b"f") + folder_entry(b"app/x") + entry(b"app/x/y", b"y") + END, "cat /app/x/y", "y")
unpacks("S-16", "folder-file", APP + folder_entry(b"app/x") + entry(b"app/x", b"f") + END, "cat /app/x", "f")
put("S-16", "full-folder-file", APP + folder_entry(b"app/x") + entry(b"app/x/y", b"y") + entry(b"app/x", b"f") + END, "cannot be written")
unpacks("S-16", "link-file", APP + link(b"app/x", canary) + entry(b"app/x", b"mine") + END, "cat /app/x", "mine")
put("S-16", "file-link-parent", APP + entry(b"app/x", b"f") + link(b"app/x", canary_dir) + entry(b"app/x/canary", b"x") + END, "cannot be written")
unpacks("S-16", "last", APP + entry(b"app/x", b"1") + entry(b"app/x", b"2") + entry(b"./app//x", b"3") + END, "cat /app/x", "3")
put("S-16", "case", APP + entry(b"app", b"no folder") + entry(b"app/x", b"x") + END, "must be a directory")

unpacks("S-17", "odd-names", APP + b"".join(entry(b"app/" + name, b"x") for name in (b"new\nline", b"\x1b[31mred", b"\xff\xfe", b"tab\t", b"-rf", b" ")) + END,
        "python3 -c 'import os; print(len(os.listdir(b\"/app\")))'", "6")
put("S-17", "nul", GOOD + pax((b"path", b"app/x\0y")) + entry(b"app/x") + END, LEAVES)
put("S-17", "escape-told", GOOD + entry(b"/\x1b[2J\nforged: line", b"x") + END, LEAVES)
unpacks("S-17", "slashes", APP + entry(b"./app/.//a/./b//", b"x", kind=b"0") + entry(b".", kind=b"5") + END, "ls -AF /app/a", "b")
put("S-17", "only-slashes", GOOD + entry(b"///", kind=b"5") + END, LEAVES)
unpacks("S-17", "no-name", GOOD + entry(b"", b"x") + END, "ls /app", "good")

for at, path in enumerate((b"proc", b"dev/null", b"etc/passwd", b"usr/bin/env", b"application/x", b"App/x")):
    put("S-18", f"beside-{at}", GOOD + entry(path, b"x") + END, "not below ./app/")
put("S-18", "app-link", link(b"app", canary_dir) + END, "must be a directory")
put("S-18", "app-hard-link", GOOD + link(b"app", b"app/good", b"1") + END, "must be a directory")
unpacks("S-18", "procfile-folder", GOOD + folder_entry(b"app/Procfile") + link(b"app/.profile.d", canary_dir) + link(b"app/.profile", canary) + END,
        "cat /app/good", "good")
put("S-18", "profile-fifo", GOOD + entry(b"app/.profile", kind=b"6") + END, "device or a FIFO")

unpacks("S-19", "closed", APP + folder_entry(b"app/d", 0) + entry(b"app/d/f", b"x", mode=0) + folder_entry(b"app/d/e", 0) + entry(b"app/d/e/g", b"x") + END,
        "stat -c %a /app/d; chmod 700 /app/d /app/d/e; stat -c %a /app/d/f; cat /app/d/e/g", "0 0 x")

for name, mtime in (("negative", -(2**33)), ("far", 2**40), ("farther", 2**62)):
    unpacks("S-22", name, APP + entry(b"app/f", b"x", mtime=mtime) + END,
            "test $(stat -c %Y /app/f) -ge 0 -a $(stat -c %Y /app/f) -le 4294967295 && echo clamped", "clamped")
