import asyncio
import threading
import time

import pytest
from OpenSSL import SSL

from est_client.simulation import virtual_time
from est_client.simulation.openssl_clock import openssl_clock
from est_client.simulation.virtual_time import NothingCanHappen, VirtualLoop, run_virtually


def loop() -> VirtualLoop:
    running = asyncio.get_running_loop()
    assert isinstance(running, VirtualLoop)
    return running


def test_days_pass_in_no_time() -> None:
    async def main() -> float:
        await asyncio.sleep(86400 * 60)
        return loop().time()

    began = time.perf_counter()
    assert run_virtually(main()) == pytest.approx(86400 * 60)
    assert time.perf_counter() - began < 60


def test_timers_come_in_their_order() -> None:
    async def main() -> list[float]:
        seen: list[float] = []

        async def one(delay: float) -> None:
            await asyncio.sleep(delay)
            seen.append(loop().time())

        await asyncio.gather(*(one(delay) for delay in (3.0, 1.0, 2.0)))
        return seen

    assert run_virtually(main()) == pytest.approx([1.0, 2.0, 3.0])


def test_no_time_passes_for_an_executor() -> None:
    async def main() -> float:
        await asyncio.to_thread(time.sleep, 0.01)
        return loop().time()

    assert run_virtually(main()) == 0.0


def test_an_error_in_an_executor_is_the_callers() -> None:
    def fail() -> None:
        raise KeyError("this")

    async def main() -> None:
        await asyncio.to_thread(fail)

    with pytest.raises(KeyError, match="this"):
        run_virtually(main())


def test_time_stands_still_for_a_thread_that_reports_back() -> None:
    async def main() -> tuple[float, float]:
        answer = loop().create_future()
        timer = loop().call_later(1.0, lambda: answer.cancel())
        report = loop().call_soon_threadsafe
        thread = threading.Timer(0.05, lambda: report(answer.set_result, None))
        thread.start()
        with loop().standing_still():
            await answer
        timer.cancel()
        still = loop().time()
        await asyncio.sleep(1)
        return still, loop().time()

    assert run_virtually(main()) == (0.0, 1.0)


def test_a_world_in_which_nothing_can_happen_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_time, "STALL_LIMIT", 0.01)

    async def main() -> None:
        await loop().create_future()

    with pytest.raises(NothingCanHappen):
        run_virtually(main())


def test_openssl_goes_by_the_clock_that_it_is_given() -> None:
    moment = [1_800_000_000.0]
    with openssl_clock(lambda: moment[0]):
        client = SSL.Connection(SSL.Context(SSL.DTLS_CLIENT_METHOD), None)
        client.set_ciphertext_mtu(1000)
        client.set_connect_state()
        with pytest.raises(SSL.WantReadError):
            client.do_handshake()
        hello = client.bio_read(65536)
        assert client.DTLSv1_get_timeout() == 1.0
        assert not client.DTLSv1_handle_timeout()
        moment[0] += 1.0
        assert client.DTLSv1_handle_timeout()
        # The same message in a record with the next number.
        again = client.bio_read(65536)
        assert again[13:] == hello[13:]
        assert again[10] == hello[10] + 1
        assert client.DTLSv1_get_timeout() == 2.0


def test_openssl_gets_its_own_clock_back() -> None:
    with openssl_clock(lambda: 0.0):
        pass
    client = SSL.Connection(SSL.Context(SSL.DTLS_CLIENT_METHOD), None)
    client.set_ciphertext_mtu(1000)
    client.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    left = client.DTLSv1_get_timeout()
    assert left is not None
    assert 0.5 < left <= 1.0
    time.sleep(0.03)
    assert (client.DTLSv1_get_timeout() or 0.0) < left
