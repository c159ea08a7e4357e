"""Runs Autobahn's cases (by `kosoku`) against a known-good peer, directly and through the gateway, both ways round.

No case may end worse than the files `expected-*.json` say. They hold what the direct runs came to, the worst of it
where it depends on how TCP cut the bytes. The last line is `N passed, N failed`; the verdicts of each run stay in
`target/test-artifacts`.
"""

import argparse
import asyncio
import sys
from pathlib import Path

import kosoku
from verdict import Verdict, read_verdicts, worse_of, write_verdicts

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "peers/python"))
from gateway import REPOSITORY, Gateway
from json_process import JsonProcess

ARTIFACTS = REPOSITORY / "target/test-artifacts"
ECHO_PEER = [sys.executable, str(HERE / "echo_peer.py")]
LONG_GROUPS = ("9.", "12.", "13.")
RUN_SECONDS_MAX = {"short": 300, "all": 3600}


async def main():
    options = parse_options()
    runs, gateway_exit = await run_everything(options)
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    passed = failed = 0
    for (peer, way), verdicts in runs.items():
        write_verdicts(ARTIFACTS / f"conformance-{peer}-{way}.json", verdicts)
        file = HERE / f"expected-{peer}.json"
        if options.write_expected and way == "direct":
            write_expected(file, verdicts)
        expected = {case: one for case, one in read_verdicts(file).items() if options.all or not is_long(case)}
        worse = find_worse(verdicts, expected)
        for line in worse:
            print(f"{peer}, {way}: {line}")
        print(f"{peer}, {way}: {len(verdicts)} cases, {len(worse)} worse than expected")
        passed += len(verdicts) - len(worse)
        failed += len(worse)
    if gateway_exit != 0:
        print(f"the gateway was to drain and exit with 0, but ended with {gateway_exit}")
        failed += 1
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0 or passed == 0)


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="the long groups 9, 12 and 13 too")
    parser.add_argument("--gateway", type=Path, default=HERE / "gateway.toml", help="another configuration")
    parser.add_argument("--write-expected", action="store_true", help="widen what is expected by the direct runs")
    return parser.parse_args()


async def run_everything(options):
    """The verdicts of all four runs, by peer under test (echo-server, echo-client) and way (direct, gateway), and the
    exit code of the gateway."""
    excluded = [] if options.all else [f"{group}*" for group in LONG_GROUPS]
    concurrency = 2 if options.all else 1
    seconds_max = RUN_SECONDS_MAX["all" if options.all else "short"]
    echo = JsonProcess([*ECHO_PEER, "server"], "stdout")
    echo_address = f"127.0.0.1:{echo.wait_for(event='listening')['port']}"
    async with (
        kosoku.run_fuzzingserver(exclude_cases=excluded, port=0) as fuzzing_direct,
        kosoku.run_fuzzingserver(exclude_cases=excluded, port=0) as fuzzing_behind,
    ):
        gateway = Gateway(options.gateway, {"echo": echo_address, "fuzzing": address_of(fuzzing_behind)})
        runs = {
            ("echo-server", "direct"): run_fuzzing_client(f"{echo_address}/echo", excluded, concurrency),
            ("echo-server", "gateway"): run_fuzzing_client(f"{gateway.address}/echo", excluded, concurrency),
            ("echo-client", "direct"): run_echo_client(fuzzing_direct, address_of(fuzzing_direct), concurrency),
            ("echo-client", "gateway"): run_echo_client(fuzzing_behind, gateway.address, concurrency),
        }
        # The short groups mostly wait, so all runs share the time; the long ones need the processor for themselves.
        together = asyncio.Semaphore(1 if options.all else len(runs))

        async def run_in_turn(run):
            async with together:
                return await asyncio.wait_for(run, seconds_max)

        verdicts = await asyncio.gather(*[run_in_turn(run) for run in runs.values()])
        gateway_exit = await asyncio.to_thread(gateway.stop)
        echo.stop()
        return dict(zip(runs, verdicts, strict=True)), gateway_exit


async def run_fuzzing_client(address, excluded, concurrency):
    cases = kosoku.run_fuzzingclient(f"ws://{address}", exclude_cases=excluded, concurrency=concurrency)
    return await verdicts_of(cases)


async def run_echo_client(fuzzing_server, address, concurrency):
    client = await asyncio.create_subprocess_exec(*ECHO_PEER, "client", f"ws://{address}", str(concurrency))
    exit_code = await client.wait()
    assert exit_code == 0, f"the echo client ended with {exit_code}"
    return await verdicts_of(fuzzing_server.get_result())


async def verdicts_of(cases):
    try:
        results = await cases
    except kosoku.FailureError as failure:
        results = failure.results
    return {result.case_id: Verdict.of(result) for result in results}


def write_expected(file, verdicts):
    """What was expected before stays so where it is worse: a case may depend on how TCP cuts the bytes."""
    before = read_verdicts(file)
    write_verdicts(file, before | {case: worse_of(one, before.get(case, one)) for case, one in verdicts.items()})


def find_worse(verdicts, expected):
    """A line for each case that did not run, was not expected, or ended worse than expected."""
    lines = [f"{case} did not run" for case in expected if case not in verdicts]
    for case, verdict in verdicts.items():
        if case not in expected:
            lines.append(f"{case} ended {verdict}, and nothing is known about it")
        elif verdict.is_worse_than(expected[case]):
            lines.append(f"{case} ended {verdict}, expected {expected[case]}")
    return lines


def is_long(case):
    return case.startswith(LONG_GROUPS)


def address_of(fuzzing_server):
    return f"{fuzzing_server.address}:{fuzzing_server.port}"


if __name__ == "__main__":
    asyncio.run(main())
