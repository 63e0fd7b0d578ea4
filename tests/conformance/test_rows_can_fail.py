"""Every row of this list passes at a server that does things right, and fails at one that does
not: a check that cannot fail says nothing."""

from __future__ import annotations

import pytest

from est_client.conformance import Bench, BenchLimits, Outcome, Result, all_rows, run
from est_client.location import ServerLocation
from est_protocol.credentials import AnchorSet
from est_protocol.key_recipients import SymmetricKey
from est_protocol.messages import Transport
from est_protocol.secure_channel.context import LocalCredentials, TrustAnchors
from tests.conformance.faulty import DEVICE_KEY, ROOT, serving
from tests.conformance.faulty_coap import serving_coaps
from tests.conformance.faulty_keys import SHARED

FAULTS = [
    ("serves reserved labels", "HTTP-05"),
    ("enrolls on GET", "HTTP-07"),
    ("takes any media type", "HTTP-08"),
    ("cacerts without base64", "HTTP-09"),
    ("decodes anything", "HTTP-09"),
    ("obeys Content-Transfer-Encoding", "HTTP-10"),
    ("dislikes white space", "HTTP-11"),
    ("cacerts in PEM", "HTTP-14"),
    ("cacerts wants authentication", "AUTH-02"),
    ("cacerts wants authentication", "TLS-19"),
    ("grants strangers", "AUTH-01"),
    ("cacerts wants authentication", "CA-02"),
    ("cacerts with signers", "CA-03"),
    ("wrong media type", "CA-04"),
    ("cacerts without root", "CA-05"),
    ("cacerts without root", "CA-06"),
    ("csrattrs of no type", "ATT-02"),
    ("csrattrs with two wishes", "ATT-08"),
    ("answers with the chain", "SE-03"),
    ("blames itself", "SE-11"),
    ("refuses in silence", "SE-11"),
    ("copies the CSR", "SE-13"),
    ("certifies another key", "SE-13"),
    ("ignores linking", "POP-01"),
    ("ignores linking", "POP-03"),
    ("compares the length only", "POP-03"),
    ("ignores linking", "POP-09"),
    ("does not explain", "POP-15"),
    ("ignores linking", "POP-17"),
    ("takes tampered CSRs", "POP-21"),
    ("lets names change", "SR-03"),
    ("renews for anybody", "SR-06"),
]
COAP_FAULTS = [
    ("has no CCM_8", "CD-01"),
    ("serves anybody", "CD-07"),
    ("keeps its CA to itself", "CA-01"),
    ("answers in base64", "CF-01"),
    ("answers 287 unasked", "CF-03"),
    ("answers 287 unasked", "CF-05"),
    ("ignores Accept", "CF-06"),
    ("says Created", "CR-02"),
    ("says nothing is bad", "CR-03"),
    ("says nothing is bad", "CR-04"),
    ("ignores options", "CR-11"),
    ("forgets messages", "CR-12"),
    ("forgets messages and blocks", "CR-13"),
    ("forgets links", "CU-04"),
    ("ignores queries", "CU-07"),
    ("forgets Block1", "BW-06"),
    ("forgets Block1", "BW-07"),
    ("calls gaps bad", "BW-09"),
    ("changes its mind", "BW-12"),
]
#: Rows about generated keys: the fault, the row, and the server that does it right.
KEY_FAULTS = [
    ("keys for signed requests", "SKG-04", "keys"),
    ("keys in three parts", "SKG-06", "keys"),
    ("keys of another certificate", "SKG-08", "keys"),
    ("keys rather in the clear", "SKG-13", "keys"),
    ("keys put off", "SKG-13", "keys"),
    ("keys signed by nobody", "SKG-14", "keys"),
    ("keys never encrypted", "SKG-14", "keys"),
    ("keys numbered wrongly", "SKG-15", "keys"),
    ("keys numbered wrongly", "SKG-16", "keys"),
    ("keys labelled wrongly", "SKG-18", "keys"),
    ("keys for signatures encrypted", "SKG-19", "keys for signatures"),
]
COAP_KEY_FAULTS = [
    ("keys rather in the clear", "SKG-13", "keys"),
    ("keys never encrypted", "SKG-14", "keys"),
    ("keys for signatures encrypted", "SKG-19", "keys for signatures"),
    ("keys in no multipart", "CF-08", "keys"),
    ("keys at one place", "CF-11", "keys"),
    ("keys of another certificate", "CF-13", "keys"),
    ("keys in the clear only", "CF-14", "keys"),
    ("keys never encrypted", "CF-15", "keys"),
    ("keys for signed requests", "CF-16", "keys"),
]
#: Without a key that is shared, for the certificate's.
KEY_AGREEMENT_FAULTS = [("keys numbered wrongly", "SKG-17"), ("keys signed by nobody", "SKG-14")]
#: Rows about all answers of a run, with the rows that have such answers given.
AFTERWARDS = [
    ("says Content-Transfer-Encoding", "HTTP-13", "CA-01"),
    ("cacerts wants authentication", "AUTH-07", "CA-01"),
    ("401 without challenge", "AUTH-07", "AUTH-01"),
    ("pending without Retry-After", "STAT-01", "AUTH-01"),
]


async def outcomes(
    fault: str,
    *ids: str,
    transport: Transport = Transport.HTTPS,
    shared_key: SymmetricKey | None = SHARED,
) -> dict[str, Result]:
    serve = serving if transport is Transport.HTTPS else serving_coaps
    async with serve(fault) as url:
        bench = Bench(
            ServerLocation.parse(url),
            TrustAnchors({AnchorSet.EXPLICIT: (ROOT.certificate,)}),
            identity=LocalCredentials(DEVICE_KEY, ()),
            shared_key=shared_key,
            limits=BenchLimits(seconds=240, patience=10),
        )
        rows = [row for row in all_rows(transport) if row.id in ids]
        return {result.row.id: result for result in await run(bench, rows)}


@pytest.mark.parametrize(("fault", "row"), FAULTS, ids=[f"{r}-{f}" for f, r in FAULTS])
async def test_row_fails_for_its_fault_alone(fault: str, row: str) -> None:
    good = "csrattrs" if row.startswith("ATT") else ""
    right = (await outcomes(good, row))[row]
    assert right.outcome is Outcome.PASS, right.evidence
    wrong = (await outcomes(fault, row))[row]
    assert wrong.outcome is Outcome.FAIL, wrong.evidence


@pytest.mark.parametrize(("fault", "row"), COAP_FAULTS, ids=[f"{r}-{f}" for f, r in COAP_FAULTS])
async def test_row_about_coap_fails_for_its_fault_alone(fault: str, row: str) -> None:
    right = (await outcomes("", row, transport=Transport.COAPS))[row]
    assert right.outcome is Outcome.PASS, right.evidence
    wrong = (await outcomes(fault, row, transport=Transport.COAPS))[row]
    assert wrong.outcome is Outcome.FAIL, wrong.evidence


@pytest.mark.parametrize(
    ("transport", "fault", "row", "good"),
    [(Transport.HTTPS, *case) for case in KEY_FAULTS]
    + [(Transport.COAPS, *case) for case in COAP_KEY_FAULTS],
)
async def test_row_about_generated_keys_fails_for_its_fault_alone(
    transport: Transport, fault: str, row: str, good: str
) -> None:
    right = (await outcomes(good, row, transport=transport))[row]
    assert right.outcome is Outcome.PASS, right.evidence
    wrong = (await outcomes(fault, row, transport=transport))[row]
    assert wrong.outcome is Outcome.FAIL, wrong.evidence


@pytest.mark.parametrize(("fault", "row"), KEY_AGREEMENT_FAULTS)
async def test_row_about_key_agreement_fails_for_its_fault_alone(fault: str, row: str) -> None:
    right = (await outcomes("keys", row, shared_key=None))[row]
    assert right.outcome is Outcome.PASS, right.evidence
    wrong = (await outcomes(fault, row, shared_key=None))[row]
    assert wrong.outcome is Outcome.FAIL, wrong.evidence


@pytest.mark.parametrize(("fault", "row", "before"), AFTERWARDS)
async def test_row_about_all_answers_fails_for_its_fault(fault: str, row: str, before: str) -> None:
    right = (await outcomes("", row, before))[row]
    assert right.outcome in (Outcome.PASS, Outcome.NOT_APPLICABLE), right.evidence
    wrong = (await outcomes(fault, row, before))[row]
    assert wrong.outcome is Outcome.FAIL, wrong.evidence


async def test_one_fault_is_not_counted_twice() -> None:
    """Who answers with the chain certifies the right key all the same."""
    results = await outcomes("answers with the chain", "SE-03", "SE-13", "SR-05")
    found = {id: result.outcome for id, result in results.items()}
    assert found == {"SE-03": Outcome.FAIL, "SE-13": Outcome.PASS, "SR-05": Outcome.PASS}


async def test_whole_run_at_a_server_that_does_it_right() -> None:
    ids = [row.id for row in all_rows(Transport.HTTPS)]
    results = await outcomes("", *ids)
    bad = (Outcome.FAIL, Outcome.ERROR)
    bound = [r for r in results.values() if r.row.level.binds and r.outcome in bad]
    assert {r.row.id: r.evidence for r in bound} == {}
