import platform

import pytest

FAULTS = """
import ctypes
import resource
from fmjax.run import allocator

allocator.Path.glob = lambda *_: iter(())  # no GPU here
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]


def page_faults(size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(size)
    libc.memset(block, 1, size)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


size = 256 * 2**20  # above the 32 MB that glibc gives back at once
print(*[page_faults(size) for _ in range(2)])
print(allocator.keep_freed_memory())
print(*[page_faults(size) for _ in range(3)])
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is about the allocator of glibc")
def test_freed_memory_is_kept_for_the_next_step(run_python):
    lines = run_python(FAULTS, devices=1).splitlines()
    first, second = map(int, lines[0].split())
    assert min(first, second) > 100  # mapped anew each time
    *_, third = map(int, lines[2].split())
    assert lines[1] == "True"
    assert third <= 2


def test_beside_a_gpu_the_allocator_is_left_alone(monkeypatch):
    from fmjax.run import allocator

    monkeypatch.setattr(allocator.Path, "glob", lambda self, pattern: iter([self / "nvidia0"]))
    assert allocator.keep_freed_memory() is False
