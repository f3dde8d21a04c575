"""Runs Autobahn's cases (package `kosoku`) against a server: verdicts by case, as JSON.

Arguments: URL, cases or globs.
"""
import asyncio
import json
import os
import sys

import kosoku


async def run(cases, concurrency):
    try:
        return await kosoku.run_fuzzingclient(sys.argv[1], cases, concurrency=concurrency)
    except kosoku.FailureError as failure:
        # Some do not pass: what counts is which, and how.
        return failure.results


async def main():
    results = await run(sys.argv[2:] or None, 4)
    for at, one in enumerate(results):
        # A machine that is busy with the others says nothing about the server.
        if one.result.startswith("Case did not finish"):
            results[at], = await run([one.case_id], 1)
    verdicts = {
        one.case_id: [one.behavior.value, one.behavior_close.value, one.remote_close_code]
        for one in results
    }
    assert len(verdicts) == len(results), "each case once"
    json.dump(verdicts, sys.stdout)


asyncio.run(main())
sys.stdout.flush()
# All is said. An interpreter that takes itself apart beside threads of packages may yet abort.
os._exit(0)
