"""Pseudonyms, labels and sources: fixed vectors, since published names must never change."""

import hashlib
import hmac

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.pseudonym import client_of, pseudonym
from streams.secrets.load import Secrets
from streams.sketch.identity import Identity, identity_of, source_id
from streams.wire.memo import TwoGenerations

KEY, SEED = bytes(range(32)), bytes(range(32, 64))
identity = Identity(KEY, "k1", SEED)


def test_a_pseudonym_is_the_first_130_bits_of_the_hmac() -> None:
    digest = hmac.new(KEY, b"client-7", hashlib.sha256).digest()
    client, tail = identity.client("client-7")
    assert client.to_bytes(8, "big") + tail == digest[:17]
    bits = "".join(f"{byte:08b}" for byte in digest)
    letters = "".join("abcdefghijklmnopqrstuvwxyz234567"[int(bits[i : i + 5], 2)] for i in range(0, 130, 5))
    assert pseudonym("k1", client, tail) == f"k1-{letters}"


def test_fixed_vectors() -> None:
    assert pseudonym("k1", *identity.client("client-7")) == "k1-ail3k5gy2cpwytsjdbogw4nvx4"
    assert identity.label("approve") == 0x0580353A
    assert source_id("gateway-logs", 3, "0") == 0x7F276B8B


def test_another_secret_gives_other_names() -> None:
    other = Identity(SEED, "k2", KEY)
    assert other.client("client-7") != identity.client("client-7")
    assert other.label("approve") != identity.label("approve")
    assert len({source_id(t, p, i) for t in ("a", "b") for p in (0, 1) for i in ("0", "1")}) == 8


@given(st.lists(st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()), max_size=20))
def test_columns_equal_single_clients(client_ids: list[str]) -> None:
    keys, tails = identity.clients(client_ids)
    assert keys.dtype == np.uint64 and tails.shape == (len(client_ids), 9)
    for i, client_id in enumerate(client_ids):
        assert (int(keys[i]), tails[i].tobytes()) == identity.client(client_id)
        assert client_of(pseudonym("k1", int(keys[i]), tails[i].tobytes())) == int(keys[i])


@pytest.mark.parametrize(
    "text", ["", "k1-", "aaaaaaaaaaaaaaaaaaaaaaaaaa", "k1-" + "a" * 25, "k1-" + "A" * 26, "k1-" + "1" * 26]
)
def test_what_is_no_pseudonym_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        client_of(text)


def test_labels_are_never_zero_and_ignore_their_json_type() -> None:
    assert identity.label(1) == identity.label("1") != identity.label(2)
    assert identity.labels(["a", 1, "a"]).tolist() == [identity.label("a"), identity.label(1), identity.label("a")]


def test_the_memo_is_bounded_and_keeps_what_is_in_use() -> None:
    asked: list[int] = []

    def square(n: int) -> int:
        asked.append(n)
        return n * n

    memo = TwoGenerations(square, limit=100)
    for n in range(1_000):
        assert memo[n] == n * n
        assert memo[0] == 0
        assert len(memo) <= 100 and len(memo._old) <= 100
    assert asked.count(0) == 1
    assert memo[500] == 250_000 and asked.count(500) == 2


def test_while_keys_rotate_the_registry_knows_clients_by_both_names() -> None:
    new = bytes(reversed(KEY))
    declared = [pseudonym("k1", *identity.client(name)) for name in ("acct-1", "acct-2")]
    declared.append(pseudonym("k2", *Identity(new, "k2", SEED).client("acct-3")))
    rotating = identity_of(Secrets(new, "k2", SEED, (KEY, "k1")), declared)
    keys, _ = rotating.clients(["acct-0", "acct-1", "acct-2", "acct-3"])
    spoken = rotating.spoken_of(keys).tolist()
    assert spoken[1:] == [client_of(name) for name in declared]
    assert spoken[0] == int(keys[0])
    alone = identity_of(Secrets(new, "k2", SEED), declared)
    assert (alone.spoken_of(keys) == keys).all()
