"""The accounts that XDP keeps, and how much of them has been reported; both outlive the agent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tof.agent.accounting import Account, AccountKey
from tof.drivers import layout
from tof.drivers.libbpf import Map


class AccountMaps:
    """tof_accounts and tof_reported. Of the former the agent writes only the entries that are its own."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._accounts, self._reported = maps["tof_accounts"], maps["tof_reported"]

    def accounts(self) -> Iterator[dict[AccountKey, Account]]:
        """Every account, in slices; one that comes twice is newer the second time."""
        yield from _slices(self._accounts)

    def reported(self) -> Iterator[dict[AccountKey, Account]]:
        """What each account was when it was last reported, in slices."""
        yield from _slices(self._reported)

    def report(self, key: AccountKey, account: Account) -> None:
        """Note that the account has been reported as it is in ``account``."""
        self._reported.put(layout.pack_account_key(key), layout.pack_account(account))

    def forget(self, key: AccountKey) -> None:
        """Nothing of this account has been reported."""
        self._reported.drop(layout.pack_account_key(key))

    def close(self, key: AccountKey) -> Account | None:
        """End an account; what it held at the last."""
        raw = self._accounts.take(layout.pack_account_key(key))
        return layout.unpack_account(raw) if raw is not None else None

    def add(self, key: AccountKey, more: Account) -> None:
        """Count what XDP does not; BackendError if the table is full."""
        raw_key = layout.pack_account_key(key._replace(by_agent=True))
        raw = self._accounts.get(raw_key)
        if raw is None:
            self._reported.drop(raw_key)
        so_far = (
            layout.unpack_account(raw)
            if raw is not None
            else more._replace(up_packets=0, down_packets=0, up_octets=0, down_octets=0)
        )
        # When it began is what tells it from the one that has been reported.
        whole = so_far.plus(more)._replace(first_ns=so_far.first_ns)
        self._accounts.put(raw_key, layout.pack_account(whole))


def _slices(table: Map) -> Iterator[dict[AccountKey, Account]]:
    for keys, values, count in table.slices():
        found = {}
        for at in range(count):
            key = keys[at * table.key_size : (at + 1) * table.key_size]
            value = values[at * table.value_size : (at + 1) * table.value_size]
            found[layout.unpack_account_key(key)] = layout.unpack_account(value)
        yield found
