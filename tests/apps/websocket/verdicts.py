"""Runs Autobahn's cases (package `kosoku`) against a server: verdicts by case, as JSON.

Arguments: URL, cases or globs.
"""
import asyncio
import json
import sys

import kosoku


async def main():
    try:
        results = await kosoku.run_fuzzingclient(sys.argv[1], sys.argv[2:] or None, concurrency=4)
    except kosoku.FailureError as failure:
        # Some do not pass: what counts is which, and how.
        results = failure.results
    verdicts = {
        one.case_id: [one.behavior.value, one.behavior_close.value, one.remote_close_code]
        for one in results
    }
    assert len(verdicts) == len(results), "each case once"
    json.dump(verdicts, sys.stdout)


asyncio.run(main())
