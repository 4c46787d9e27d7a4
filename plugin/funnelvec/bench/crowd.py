"""Several clients at once: how many queries a second get answered, contestant by contestant."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from funnelvec.bench.stage import Runner
from funnelvec.errors import InvalidInput

__all__ = ["Crowd", "ask_together", "check_clients", "take_turns_together"]


@dataclass(frozen=True, slots=True)
class Crowd:
    """Queries per second of each contestant by round, and what the clients themselves took.

    `client_share` is the processor time of this process over the time that passed, in cores: the
    clients are threads of it, so near 1 they are what bounds the rates.
    """

    rates: tuple[tuple[float, ...], ...]
    client_share: float


def take_turns_together(
    contestants: Sequence[Sequence[Runner]],
    queries: Sequence[Any],
    *,
    rounds: int,
    say: Callable[[str], None] = lambda text: None,
) -> Crowd:
    """Let all clients of a contestant ask at once, one contestant after the other, by rounds.

    Parameters
    ----------
    contestants
        The clients of each, every one with a connection of its own. Each asks every query once a
        round, starting at a different one.
    """
    rates: list[list[float]] = [[] for _ in contestants]
    passed, worked = 0.0, 0.0
    for clients in contestants:
        ask_together(clients, queries[:2])  # plans and connections are warm before it counts
    for turn in range(rounds):
        say(f"{len(contestants[0])} clients, round {turn + 1} of {rounds}")
        for shift in range(len(contestants)):
            place = (turn + shift) % len(contestants)
            began = time.process_time()
            count, seconds = ask_together(contestants[place], queries)
            rates[place].append(count / seconds)
            passed, worked = passed + seconds, worked + time.process_time() - began
    return Crowd(tuple(map(tuple, rates)), worked / passed)


def ask_together(clients: Sequence[Runner], queries: Sequence[Any]) -> tuple[int, float]:
    """Ask from all clients at once; how many searches were answered, and in how many seconds.

    Raises
    ------
    Exception
        What the first failing client raised.
    """
    asked = queries[:: clients[0].contestant.every]
    failures: list[BaseException] = []
    ready = threading.Barrier(len(clients) + 1)

    def run(number: int, client: Runner) -> None:
        first = number * len(asked) // len(clients)
        ready.wait()
        try:
            for query in (*asked[first:], *asked[:first]):
                client.search(query)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=each, daemon=True) for each in enumerate(clients)]
    for thread in threads:
        thread.start()
    ready.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    if failures:
        raise failures[0]
    return len(asked) * len(clients), seconds


def check_clients(clients: int) -> None:
    """Refuse numbers of clients that make no sense."""
    if not 1 <= clients <= 64:
        raise InvalidInput(f"clients must be 1 to 64, not {clients}")
