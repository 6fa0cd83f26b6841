"""The workloads for the process pools of Python's standard library.

pools.py concurrent.futures|multiprocessing WORKLOAD NUMBER...

Runs one workload in one pool and prints its figures, in the order and the units of the program that starts it.
"""

import concurrent.futures
import multiprocessing
import os
import statistics
import sys
import time


class Futures:
    def __init__(self, workers):
        self.pool = concurrent.futures.ProcessPoolExecutor(workers)

    def submit(self, function, *arguments):
        return self.pool.submit(function, *arguments).result

    def map(self, function, items, chunk):
        return list(self.pool.map(function, items, chunksize=chunk))

    def shutdown(self):
        self.pool.shutdown()


class Multiprocessing:
    def __init__(self, workers):
        self.pool = multiprocessing.Pool(workers)

    def submit(self, function, *arguments):
        return self.pool.apply_async(function, arguments).get

    def map(self, function, items, chunk):
        return self.pool.map(function, items, chunksize=chunk)

    def shutdown(self):
        self.pool.close()
        self.pool.join()


POOLS = {"concurrent.futures": Futures, "multiprocessing": Multiprocessing}


# What runs in the workers.


def nothing():
    pass


def echo(value):
    return value


def square(n):
    return n * n


def nap(seconds):
    time.sleep(seconds)
    return os.getpid()


def is_prime(n):
    if n == 2:
        return True
    if n < 2 or n % 2 == 0:
        return False
    divisor = 3
    while divisor * divisor <= n:
        if n % divisor == 0:
            return False
        divisor += 2
    return True


def sum_of_range(first, end):
    return sum(range(first, end))


# The workloads.


def warm(start, workers):
    """A pool whose workers are all there."""
    pool = start(workers)
    for result in [pool.submit(nap, 0.05) for _ in range(workers)]:
        result()
    return pool


def round_trip(start, workers, warm_up, trips, pause):
    pool = warm(start, workers)
    times = []
    for n in range(warm_up + trips):
        paused = time.perf_counter() + pause / 1e6
        while pause and time.perf_counter() < paused:
            pass
        begun = time.perf_counter()
        pool.submit(nothing)()
        if n >= warm_up:
            times.append((time.perf_counter() - begun) * 1e6)
    pool.shutdown()
    times.sort()
    return times[len(times) // 2], statistics.fmean(times), times[round((len(times) - 1) * 0.99)]


def tasks(start, workers, count):
    pool = warm(start, workers)
    begun = time.perf_counter()
    for result in [pool.submit(nothing) for _ in range(count)]:
        result()
    micros = (time.perf_counter() - begun) * 1e6 / count
    pool.shutdown()
    return micros, 1e6 / micros


def items(start, workers, count, chunk):
    pool = warm(start, workers)
    begun = time.perf_counter()
    squares = pool.map(square, range(count), chunk)
    nanos = (time.perf_counter() - begun) * 1e9 / count
    pool.shutdown()
    assert len(squares) == count and squares[-1] == (count - 1) ** 2
    return nanos, 1e3 / nanos


def echoes(start, workers, size, warm_up, times):
    pool = warm(start, workers)
    value = b"\7" * size
    for _ in range(warm_up):
        value = pool.submit(echo, value)()
    begun = time.perf_counter()
    for _ in range(times):
        value = pool.submit(echo, value)()
    micros = (time.perf_counter() - begun) * 1e6 / times
    pool.shutdown()
    assert len(value) == size
    return micros, size / micros


def starts(start, workers, times, nap_millis):
    ready, total = [], []
    for _ in range(times):
        begun = time.perf_counter()
        pool = start(workers)
        for result in [pool.submit(nap, nap_millis / 1e3) for _ in range(workers)]:
            result()
        ready.append((time.perf_counter() - begun) * 1e3 - nap_millis)
        pool.shutdown()
        total.append((time.perf_counter() - begun) * 1e3 - nap_millis)
    return statistics.median(ready), statistics.median(total)


def primes(start, workers, *numbers):
    pool = warm(start, workers)
    begun = time.perf_counter()
    found = [result() for result in [pool.submit(is_prime, n) for n in numbers]]
    millis = (time.perf_counter() - begun) * 1e3
    pool.shutdown()
    assert any(found)
    return (millis,)


def sums(start, parts, last):
    return timed_sum(start, parts, last, sum_of_range, lambda first, end: (first, end))


def sums_of_lists(start, parts, last):
    return timed_sum(start, parts, last, sum, lambda first, end: (list(range(first, end)),))


def timed_sum(start, parts, last, function, arguments):
    # Before there is anything that forked workers would share.
    pool = warm(start, parts)
    borders = [1 + n * last // parts for n in range(parts + 1)]
    calls = [arguments(first, end) for first, end in zip(borders, borders[1:])]
    begun = time.perf_counter()
    total = sum(result() for result in [pool.submit(function, *call) for call in calls])
    millis = (time.perf_counter() - begun) * 1e3
    pool.shutdown()
    assert total == last * (last + 1) // 2
    return (millis,)


def memory(start, workers, nap_millis):
    pool = start(workers)
    pids = [result() for result in [pool.submit(nap, nap_millis / 1e3) for _ in range(workers)]]
    time.sleep(nap_millis / 1e3)
    figures = [rollup(pid) for pid in pids]
    pool.shutdown()
    return [statistics.median(column) for column in zip(*figures)]


def rollup(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        lines = file.read().splitlines()
    prefixes = ("Rss:", "Pss:", "Private_")
    return [sum(int(line.split()[1]) for line in lines if line.startswith(prefix)) / 1024 for prefix in prefixes]


WORKLOADS = {
    "round_trip": round_trip,
    "tasks": tasks,
    "items": items,
    "echo": echoes,
    "start": starts,
    "primes": primes,
    "sums": sums,
    "sums_of_lists": sums_of_lists,
    "memory": memory,
}

if __name__ == "__main__":
    pool, workload, *numbers = sys.argv[1:]
    print(*WORKLOADS[workload](POOLS[pool], *map(int, numbers)))
