"""Runs Autobahn's cases (by `kosoku`) against a known-good peer, directly and through gateways, both ways round.

No case may end worse than the files `expected-*.json` say. They hold what the direct runs came to, the worst of it
where it depends on how TCP cut the bytes. `enforced.json` has every case that the gateway is to end by itself where it
enforces frames, with the rule that the case breaks; it ends no other. The last line is `N passed, N failed`; the
verdicts of each run stay in `target/test-artifacts`.
"""

import argparse
import asyncio
import json
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import kosoku
from verdict import Outcome, read_verdicts, worse_of, write_verdicts

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "peers/python"))
from gateway import REPOSITORY, Gateway
from json_process import JsonProcess

ARTIFACTS = REPOSITORY / "target/test-artifacts"
ECHO_PEER = [sys.executable, str(HERE / "echo_peer.py")]
PEERS = ("echo-server", "echo-client")
DIRECT = "direct"
LONG_GROUPS = ("9.*", "12.*", "13.*")
RUN_SECONDS_MAX = {"short": 300, "all": 3600}


class Way(NamedTuple):
    """A gateway in between. `tunnel` is what its routes say of their tunnels, `left_out` the cases that it is spared."""

    tunnel: str
    left_out: tuple[str, ...] = ()


WAYS = {
    "track": Way('frames = "track"'),
    # Autobahn answers a Ping at once, even where it has sent half a frame itself, and so breaks that frame.
    "pings": Way('ping_interval = "1s"\nping_timeout = "1m"', left_out=("6.4.3", "6.4.4")),
    "enforce": Way('frames = "enforce"'),
}


async def main():
    options = parse_options()
    runs, failures = await run_everything(options)
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    passed, failed = 0, len(failures)
    for (peer, way), outcomes in runs.items():
        verdicts = {case: outcome.verdict for case, outcome in outcomes.items()}
        write_verdicts(ARTIFACTS / f"conformance-{peer}-{way}.json", verdicts)
        file = HERE / f"expected-{peer}.json"
        if options.write_expected and way == DIRECT:
            write_expected(file, verdicts)
        expected = {case: one for case, one in read_verdicts(file).items() if is_chosen(case, options, way)}
        wrong = find_worse(verdicts, expected) | find_wrongly_ended(outcomes, way)
        for case, line in wrong.items():
            print(f"{peer}, {way}: {case} {line}")
        print(f"{peer}, {way}: {len(outcomes)} cases, {len(wrong)} wrong{notes(outcomes)}")
        passed += len(outcomes.keys() - wrong.keys())
        failed += len(wrong)
    for line in failures:
        print(line)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0 or passed == 0)


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="the long groups 9, 12 and 13 too; through `track` alone")
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="only these; a * stands for anything")
    parser.add_argument("--through", nargs="+", metavar="WAY", choices=WAYS, help="only these gateways")
    parser.add_argument("--gateway", type=Path, default=HERE / "gateway.toml", help="another configuration")
    parser.add_argument("--write-expected", action="store_true", help="widen what is expected by the direct runs")
    options = parser.parse_args()
    options.through = options.through or (["track"] if options.all else list(WAYS))
    return options


async def run_everything(options):
    """The outcomes of all runs, by peer under test and way, and what was wrong with the gateways themselves."""
    echo = JsonProcess([*ECHO_PEER, "server"], "stdout")
    echo_address = f"127.0.0.1:{echo.wait_for(event='listening')['port']}"
    # The short groups mostly wait, so all runs share the time; the long ones need the processor for themselves.
    together = asyncio.Semaphore(1 if options.all else 2 * (len(options.through) + 1))
    ways = [DIRECT, *options.through]
    results = await asyncio.gather(*[run_way(way, echo_address, options, together) for way in ways])
    echo.stop()
    runs = {(peer, way): found[peer] for peer in PEERS for way, (found, _) in zip(ways, results)}
    failures = [failure for _, failures in results for failure in failures]
    pinged = [one for (_, way), found in runs.items() for one in found.values() if way == "pings" and one.was_pinged]
    if "pings" in ways and not options.cases and not pinged:
        failures.append("pings: no case was open for long enough to see one")
    return runs, failures


async def run_way(way, echo_address, options, together):
    """Both peers on one way, and the failures of the gateway on it."""
    cases, left_out = options.cases, left_out_of(options, way)
    concurrency = 2 if options.all else 1
    seconds_max = RUN_SECONDS_MAX["all" if options.all else "short"]

    async def run_in_turn(run):
        async with together:
            return await asyncio.wait_for(run, seconds_max)

    async with kosoku.run_fuzzingserver(cases=cases, exclude_cases=left_out, port=0) as fuzzing:
        gateway, to_echo, to_fuzzing = None, echo_address, address_of(fuzzing)
        if way != DIRECT:
            words = {"echo": echo_address, "fuzzing": to_fuzzing, "tunnel": WAYS[way].tunnel}
            gateway = Gateway(options.gateway, words)
            to_echo = to_fuzzing = gateway.address
        server, client = await asyncio.gather(
            run_in_turn(run_fuzzing_client(f"{to_echo}/echo", cases, left_out, concurrency)),
            run_in_turn(run_echo_client(fuzzing, to_fuzzing, concurrency)),
        )
        exit_code = await asyncio.to_thread(gateway.stop) if gateway else 0
    failures = [f"{way}: the gateway was to drain and exit with 0, but ended with {exit_code}"] if exit_code else []
    return {"echo-server": server, "echo-client": client}, failures


async def run_fuzzing_client(address, cases, left_out, concurrency):
    url = f"ws://{address}"
    run = kosoku.run_fuzzingclient(url, cases=cases, exclude_cases=left_out, concurrency=concurrency)
    return await outcomes_of(run)


async def run_echo_client(fuzzing_server, address, concurrency):
    client = await asyncio.create_subprocess_exec(*ECHO_PEER, "client", f"ws://{address}", str(concurrency))
    exit_code = await client.wait()
    assert exit_code == 0, f"the echo client ended with {exit_code}"
    return await outcomes_of(fuzzing_server.get_result())


async def outcomes_of(cases):
    try:
        results = await cases
    except kosoku.FailureError as failure:
        results = failure.results
    return {result.case_id: Outcome.of(result) for result in results}


def write_expected(file, verdicts):
    """What was expected before stays so where it is worse: a case may depend on how TCP cuts the bytes."""
    before = read_verdicts(file)
    write_verdicts(file, before | {case: worse_of(one, before.get(case, one)) for case, one in verdicts.items()})


def find_worse(verdicts, expected):
    """What is wrong with each case that did not run, was not expected, or ended worse than expected."""
    wrong = {case: "did not run" for case in expected if case not in verdicts}
    for case, verdict in verdicts.items():
        if case not in expected:
            wrong[case] = f"ended {verdict}, and nothing is known about it"
        elif verdict.is_worse_than(expected[case]):
            wrong[case] = f"ended {verdict}, expected {expected[case]}"
    return wrong


def find_wrongly_ended(outcomes, way):
    """What is wrong with each case that the gateway ended by itself and should not have, or the other way round."""
    enforced = json.loads((HERE / "enforced.json").read_text()) if way == "enforce" else {}
    rules = {case: rule for rule, cases in enforced.items() for case in cases}
    wrong = {}
    for case, outcome in outcomes.items():
        if outcome.was_ended and case not in rules:
            wrong[case] = "was ended by the gateway, and no rule is known that it breaks"
        elif not outcome.was_ended and case in rules:
            wrong[case] = f"was not ended by the gateway: {rules[case]}"
    return wrong


def notes(outcomes):
    """How many cases the gateway had a hand in."""
    ended = sum(outcome.was_ended for outcome in outcomes.values())
    pinged = sum(outcome.was_pinged for outcome in outcomes.values())
    return "".join(f", {count} {what}" for count, what in [(ended, "ended"), (pinged, "pinged")] if count)


def is_chosen(case, options, way):
    chosen = any(fnmatch(case, pattern) for pattern in options.cases or ["*"])
    return chosen and not any(fnmatch(case, pattern) for pattern in left_out_of(options, way))


def left_out_of(options, way):
    left_out = [] if options.all else list(LONG_GROUPS)
    return left_out if way == DIRECT else [*left_out, *WAYS[way].left_out]


def address_of(fuzzing_server):
    return f"{fuzzing_server.address}:{fuzzing_server.port}"


if __name__ == "__main__":
    asyncio.run(main())
