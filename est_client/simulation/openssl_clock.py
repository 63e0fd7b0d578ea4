"""OpenSSL's clock, set to another one for as long as a simulation runs.

DTLS's retransmission timers and the validity of certificates go by the system's clock, which
OpenSSL reads by two functions of the C library, and it offers no way to give it another one. So
the two entries of the import table of the library that carries OpenSSL are pointed at functions
of ours: nothing else in the process notices. This is how a debugger or libfaketime does it, with
no library to preload; it is for simulations and has no place elsewhere.

ELF and its dynamic section are described in the System V ABI, chapters 4 and 5.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.bindings import _rust

from est_protocol.errors import ConfigurationError

_READ, _WRITE = 1, 2
_PT_DYNAMIC = 2
_PLTRELSZ, _STRTAB, _SYMTAB, _RELA, _RELASZ, _JMPREL = 2, 5, 6, 7, 8, 23

_GETTIMEOFDAY = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int64), ctypes.c_void_p)
_TIME = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.POINTER(ctypes.c_int64))


@contextmanager
def openssl_clock(now: Callable[[], float]) -> Iterator[None]:
    """Let OpenSSL, and nothing else in this process, go by another clock.

    :param now: seconds since 1970.
    :raises ConfigurationError: it is not known how to do that on this system.
    """

    def gettimeofday(result: Any, _zone: Any) -> int:
        moment = now()
        result[0] = int(moment)
        result[1] = int(moment % 1 * 1_000_000)
        return 0

    def time(result: Any) -> int:
        moment = int(now())
        if result:
            result[0] = moment
        return moment

    slots = _import_slots(Path(_rust.__file__), {b"gettimeofday", b"time"})
    replacements = {b"gettimeofday": _GETTIMEOFDAY(gettimeofday), b"time": _TIME(time)}
    before: dict[int, int] = {}
    try:
        for name, address in slots.items():
            function = ctypes.cast(replacements[name], ctypes.c_void_p).value
            assert function is not None
            before[address] = _exchange(address, function)
        yield
    finally:
        for address, function in before.items():
            _exchange(address, function)


def _import_slots(library: Path, names: set[bytes]) -> dict[bytes, int]:
    """Where the addresses of imported functions stand in memory."""
    if sys.platform != "linux" or sys.byteorder != "little" or sys.maxsize < 1 << 32:
        raise ConfigurationError(
            "virtual time is for 64-bit Linux only: OpenSSL's clock cannot be set elsewhere; "
            "--real-time does without it"
        )
    base = _load_address(library)
    dynamic = _dynamic_section(library.read_bytes())
    slots: dict[bytes, int] = {}
    for table, size in ((_RELA, _RELASZ), (_JMPREL, _PLTRELSZ)):
        if table not in dynamic:
            continue
        raw = ctypes.string_at(base + dynamic[table], dynamic[size])
        for offset, info, _addend in struct.iter_unpack("<QQq", raw):
            if symbol := info >> 32:
                entry = base + dynamic[_SYMTAB] + 24 * symbol
                (name_at,) = struct.unpack("<I", ctypes.string_at(entry, 4))
                name = ctypes.string_at(base + dynamic[_STRTAB] + name_at)
                if name in names:
                    slots[name] = base + offset
    if missing := names - slots.keys():
        raise ConfigurationError(
            f"virtual time: {library.name} does not import {sorted(missing)} as expected; "
            "--real-time does without it"
        )
    return slots


def _load_address(library: Path) -> int:
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == str(library) and int(fields[2], 16) == 0:
            return int(fields[0].split("-")[0], 16)
    raise ConfigurationError(f"virtual time: {library} is not where it was loaded from")


def _dynamic_section(elf: bytes) -> dict[int, int]:
    (headers_at,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    for number in range(count):
        kind, _flags, offset, _va, _pa, length, _ms, _align = struct.unpack_from(
            "<IIQQQQQQ", elf, headers_at + number * size
        )
        if kind == _PT_DYNAMIC:
            entries = struct.iter_unpack("<qQ", elf[offset : offset + length])
            return dict(reversed(list(entries)))
    raise ConfigurationError("virtual time: the library has no dynamic section")


def _exchange(address: int, function: int) -> int:
    """Write one entry of the import table, which usually is read-only once a library is loaded."""
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    page = ctypes.c_void_p(address & ~(mmap.PAGESIZE - 1))
    size = ctypes.c_size_t(mmap.PAGESIZE)
    before = _READ | (_WRITE if _is_writable(address) else 0)
    if protect(page, size, _READ | _WRITE):
        raise ConfigurationError("virtual time: the system keeps the import table read-only")
    entry = ctypes.c_void_p.from_address(address)
    previous, entry.value = entry.value, function
    protect(page, size, before)
    assert previous is not None
    return previous


def _is_writable(address: int) -> bool:
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, permissions = line.split(maxsplit=2)[:2]
        begin, end = (int(part, 16) for part in place.split("-"))
        if begin <= address < end:
            return "w" in permissions
    raise ConfigurationError("virtual time: the import table is not where it should be")
