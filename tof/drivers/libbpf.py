"""A thin typed layer over libbpf.so.1: objects, programs, maps, ring buffers; the only ctypes in the TOF's BPF drivers."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

from tof.errors import BackendError, SetupError

ANY, NOEXIST, EXIST = 0, 1, 2
_ENOUGH = (
    -errno.ECANCELED
)  # what a ring buffer's callback answers to be called no more; the record counts as read

_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "bpf_object__open_file": (c_void_p, (c_char_p, c_void_p)),
    "bpf_object__load": (c_int, (c_void_p,)),
    "bpf_object__close": (None, (c_void_p,)),
    "bpf_object__next_map": (c_void_p, (c_void_p, c_void_p)),
    "bpf_object__next_program": (c_void_p, (c_void_p, c_void_p)),
    "bpf_map__name": (c_char_p, (c_void_p,)),
    "bpf_map__fd": (c_int, (c_void_p,)),
    "bpf_map__type": (c_uint32, (c_void_p,)),
    "bpf_map__key_size": (c_uint32, (c_void_p,)),
    "bpf_map__value_size": (c_uint32, (c_void_p,)),
    "bpf_map__max_entries": (c_uint32, (c_void_p,)),
    "bpf_map__set_max_entries": (c_int, (c_void_p, c_uint32)),
    "bpf_map__reuse_fd": (c_int, (c_void_p, c_int)),
    "bpf_program__name": (c_char_p, (c_void_p,)),
    "bpf_program__fd": (c_int, (c_void_p,)),
    "bpf_map_update_elem": (c_int, (c_int, c_void_p, c_void_p, c_uint64)),
    "bpf_map_lookup_elem": (c_int, (c_int, c_void_p, c_void_p)),
    "bpf_map_delete_elem": (c_int, (c_int, c_void_p)),
    "bpf_map_lookup_and_delete_elem": (c_int, (c_int, c_void_p, c_void_p)),
    "bpf_map_get_next_key": (c_int, (c_int, c_void_p, c_void_p)),
    "bpf_map_lookup_batch": (
        c_int,
        (c_int, c_void_p, c_void_p, c_void_p, c_void_p, POINTER(c_uint32), c_void_p),
    ),
    "bpf_map_update_batch": (c_int, (c_int, c_void_p, c_void_p, POINTER(c_uint32), c_void_p)),
    "bpf_map_delete_batch": (c_int, (c_int, c_void_p, POINTER(c_uint32), c_void_p)),
    "bpf_prog_get_fd_by_id": (c_int, (c_uint32,)),
    "bpf_map_get_fd_by_id": (c_int, (c_uint32,)),
    "bpf_obj_get_info_by_fd": (c_int, (c_int, c_void_p, POINTER(c_uint32))),
    "bpf_prog_test_run_opts": (c_int, (c_int, c_void_p)),
    "ring_buffer__new": (c_void_p, (c_int, c_void_p, c_void_p, c_void_p)),
    "ring_buffer__consume": (c_int, (c_void_p,)),
    "ring_buffer__epoll_fd": (c_int, (c_void_p,)),
    "ring_buffer__free": (None, (c_void_p,)),
    "libbpf_set_print": (c_void_p, (c_void_p,)),
    "libbpf_num_possible_cpus": (c_int, ()),
}


def _load() -> Any:
    try:
        library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise SetupError(f"libbpf.so.1 cannot be loaded ({error}): install the package libbpf1") from error
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.libbpf_set_print(None)
    return library


class _Library:
    """libbpf, loaded when first used, so that commands that need no BPF start without it."""

    def __getattr__(self, name: str) -> Any:
        library = _load()
        for function in _SIGNATURES:
            setattr(self, function, getattr(library, function))
        return getattr(library, name)


lib: Any = _Library()


def check(result: int, what: str) -> int:
    """``result`` of a libbpf call; BackendError with the system's reason when it is negative."""
    if result < 0:
        code = ctypes.get_errno() or -result
        raise BackendError(f"{what}: {os.strerror(code)}")
    return result


class Map:
    """A BPF map by file descriptor; keys and values are bytes of the map's fixed sizes."""

    def __init__(self, fd: int, name: str, key_size: int, value_size: int, max_entries: int) -> None:
        self.fd, self.name = fd, name
        self.key_size, self.value_size, self.max_entries = key_size, value_size, max_entries
        self._slot = ctypes.create_string_buffer(max(value_size, 1))

    def put(self, key: bytes, value: bytes, flags: int = ANY) -> None:
        """Insert or replace one entry; BackendError when the map is full or the kernel refuses."""
        if lib.bpf_map_update_elem(self.fd, key, value, flags) < 0:
            raise BackendError(f"map {self.name}: {os.strerror(ctypes.get_errno())}")

    def get(self, key: bytes) -> bytes | None:
        """The value under ``key``, or None."""
        return self._slot.raw if self._read(key, self._slot) else None

    def get_per_cpu(self, key: bytes) -> list[bytes]:
        """The values of every possible CPU under ``key`` of a per-CPU map."""
        stride = (self.value_size + 7) & ~7
        slot = ctypes.create_string_buffer(stride * int(lib.libbpf_num_possible_cpus()))
        self._read(key, slot)
        return [slot.raw[at : at + self.value_size] for at in range(0, len(slot), stride)]

    def _read(self, key: bytes, slot: ctypes.Array[ctypes.c_char]) -> bool:
        if lib.bpf_map_lookup_elem(self.fd, key, slot) < 0:
            if (code := ctypes.get_errno()) == errno.ENOENT:
                return False
            raise BackendError(f"map {self.name}: {os.strerror(code)}")
        return True

    def drop(self, key: bytes) -> bool:
        """Delete one entry; False when there was none."""
        if lib.bpf_map_delete_elem(self.fd, key) < 0:
            if (code := ctypes.get_errno()) == errno.ENOENT:
                return False
            raise BackendError(f"map {self.name}: {os.strerror(code)}")
        return True

    def take(self, key: bytes) -> bytes | None:
        """Delete one entry; the value that it had at the last, or None."""
        if lib.bpf_map_lookup_and_delete_elem(self.fd, key, self._slot) < 0:
            if (code := ctypes.get_errno()) == errno.ENOENT:
                return None
            raise BackendError(f"map {self.name}: {os.strerror(code)}")
        return self._slot.raw

    def put_many(self, keys: bytes, values: bytes) -> None:
        """Insert or replace many entries, given back to back."""
        count = c_uint32(len(keys) // self.key_size)
        if count.value:
            check(
                lib.bpf_map_update_batch(self.fd, keys, values, ctypes.byref(count), None), f"map {self.name}"
            )

    def slices(self, size: int = 4096) -> Iterator[tuple[bytes, bytes, int]]:
        """All entries as (keys, values, count), back to back, at most ``size`` at a time (hash maps)."""
        keys = ctypes.create_string_buffer(self.key_size * size)
        values = ctypes.create_string_buffer(self.value_size * size)
        cursor = ctypes.create_string_buffer(max(self.key_size, 4))
        first = True
        while True:
            count = c_uint32(size)
            result = lib.bpf_map_lookup_batch(
                self.fd, None if first else cursor, cursor, keys, values, ctypes.byref(count), None
            )
            code = ctypes.get_errno() if result < 0 else 0
            if code == errno.ENOSPC and size < 1 << 20:
                yield from self.slices(size * 4)
                return
            if code not in (0, errno.ENOENT):
                raise BackendError(f"map {self.name}: {os.strerror(code)}")
            if count.value:
                used = count.value
                yield keys.raw[: used * self.key_size], values.raw[: used * self.value_size], used
            if result < 0:
                return
            first = False

    def close(self) -> None:
        """Close the descriptor; the map lives on while a program uses it."""
        os.close(self.fd)


class _MapInfo(ctypes.Structure):
    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("key_size", c_uint32),
        ("value_size", c_uint32),
        ("max_entries", c_uint32),
        ("map_flags", c_uint32),
        ("name", ctypes.c_char * 16),
        ("rest", ctypes.c_char * 64),
    )


class _ProgramInfo(ctypes.Structure):
    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("tag", ctypes.c_ubyte * 8),
        ("jited_len", c_uint32),
        ("xlated_len", c_uint32),
        ("jited", c_uint64),
        ("xlated", c_uint64),
        ("load_time", c_uint64),
        ("uid", c_uint32),
        ("map_count", c_uint32),
        ("map_ids", c_uint64),
        ("name", ctypes.c_char * 16),
        ("rest", ctypes.c_char * 160),
    )


def _info(fd: int, info: ctypes.Structure) -> None:
    size = c_uint32(ctypes.sizeof(info))
    check(lib.bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)), "BPF object info")


def program_tag(fd: int) -> bytes:
    """The hash of a loaded program's instructions: equal programs have equal tags, whatever maps they use."""
    info = _ProgramInfo()
    _info(fd, info)
    return bytes(info.tag)


def program_tag_of(program_id: int) -> bytes:
    """The same by program id; empty if it is gone."""
    fd = lib.bpf_prog_get_fd_by_id(program_id)
    if fd < 0:
        return b""
    try:
        return program_tag(fd)
    finally:
        os.close(fd)


def maps_of(program_id: int) -> dict[str, Map]:
    """The maps that a loaded program uses, by name, each with a new descriptor; empty if it is gone."""
    fd = lib.bpf_prog_get_fd_by_id(program_id)
    if fd < 0:
        return {}
    ids = (c_uint32 * 64)()
    info = _ProgramInfo(map_count=64, map_ids=ctypes.addressof(ids))
    try:
        _info(fd, info)
    finally:
        os.close(fd)
    found: dict[str, Map] = {}
    for map_id in ids[: info.map_count]:
        map_fd = check(lib.bpf_map_get_fd_by_id(map_id), f"map id {map_id}")
        details = _MapInfo()
        _info(map_fd, details)
        found[details.name.decode()] = Map(
            map_fd, details.name.decode(), details.key_size, details.value_size, details.max_entries
        )
    return found


class BpfObject:
    """A loaded object file: its maps and programs. ``reuse`` maps replace the object's own where they fit."""

    def __init__(self, path: Path, sizes: dict[str, int], reuse: dict[str, Map]) -> None:
        self._handle = lib.bpf_object__open_file(str(path).encode(), None)
        if not self._handle:
            raise SetupError(f"{path} cannot be opened ({os.strerror(ctypes.get_errno())}): run tools/setup")
        walk = self._walk(lib.bpf_object__next_map, lib.bpf_map__name)
        own = {name: handle for name, handle in walk if "." not in name}  # not the compiler's constants
        for name, size in sizes.items():
            check(lib.bpf_map__set_max_entries(own[name], size), f"size of map {name}")
        self.reused = _fits(own, reuse)
        if self.reused:
            for name in own.keys() & reuse.keys():
                check(lib.bpf_map__reuse_fd(own[name], reuse[name].fd), f"reuse of map {name}")
        if lib.bpf_object__load(self._handle) < 0:
            reason = os.strerror(ctypes.get_errno())
            lib.bpf_object__close(self._handle)
            raise SetupError(
                f"the kernel refuses the BPF programs ({reason}): CAP_BPF, CAP_NET_ADMIN and "
                "CAP_PERFMON and kernel 6.1 or newer are needed"
            )
        self.maps = {name: _map(name, handle) for name, handle in own.items()}
        self.programs = {
            name: int(lib.bpf_program__fd(handle))
            for name, handle in self._walk(lib.bpf_object__next_program, lib.bpf_program__name)
        }

    def _walk(self, step: Any, name: Any) -> Iterator[tuple[str, Any]]:
        handle = step(self._handle, None)
        while handle:
            yield name(handle).decode(), handle
            handle = step(self._handle, handle)

    def close(self) -> None:
        """Close every descriptor; what is attached stays in force."""
        lib.bpf_object__close(self._handle)


def _map(name: str, handle: Any) -> Map:
    return Map(
        int(lib.bpf_map__fd(handle)),
        name,
        int(lib.bpf_map__key_size(handle)),
        int(lib.bpf_map__value_size(handle)),
        int(lib.bpf_map__max_entries(handle)),
    )


def _fits(own: dict[str, Any], reuse: dict[str, Map]) -> bool:
    """All that was found is taken over or nothing: half a state would be worse than an empty one."""
    return bool(reuse) and all(
        name in own
        and one.key_size == lib.bpf_map__key_size(own[name])
        and one.value_size == lib.bpf_map__value_size(own[name])
        for name, one in reuse.items()
        if "." not in name
    )


class RingBuffer:
    """Reads a BPF ring buffer; ``fd`` is readable while records wait, ``drain`` hands ``at_once`` of them to ``sink``."""

    def __init__(self, ring: Map, sink: Callable[[bytes], None], at_once: int) -> None:
        self._at_once, self._left = at_once, 0
        prototype = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t)

        def deliver(_context: int, data: int, size: int) -> int:
            sink(ctypes.string_at(data, size))
            self._left -= 1
            return 0 if self._left > 0 else _ENOUGH

        self._deliver = prototype(deliver)  # kept: libbpf calls it
        self._handle = lib.ring_buffer__new(ring.fd, self._deliver, None, None)
        if not self._handle:
            raise BackendError(f"ring buffer {ring.name}: {os.strerror(ctypes.get_errno())}")
        self.fd = int(lib.ring_buffer__epoll_fd(self._handle))

    def drain(self) -> None:
        """Deliver what waits, so many records at a time: a flood must leave the event loop time for everything else."""
        self._left = self._at_once
        if (result := lib.ring_buffer__consume(self._handle)) != _ENOUGH:
            check(result, "ring buffer")

    def close(self) -> None:
        """Release the buffer."""
        lib.ring_buffer__free(self._handle)
