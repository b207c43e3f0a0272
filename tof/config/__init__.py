"""Configuration: TOML, checked once, becomes frozen settings; plus the names an instance uses on the host."""

from tof.config.names import Names, QueueNames, names_of
from tof.config.reading import load, parse
from tof.config.settings import (
    S1,
    Accounting,
    Agent,
    Api,
    Collector,
    Config,
    Dns,
    IpInterface,
    IpNetwork,
    Log,
    Pinger,
    State,
    TcpListen,
    Tunnels,
    Ue,
    UnixListen,
    Vnf,
)

__all__ = [
    "S1",
    "Accounting",
    "Agent",
    "Api",
    "Collector",
    "Config",
    "Dns",
    "IpInterface",
    "IpNetwork",
    "Log",
    "Names",
    "Pinger",
    "QueueNames",
    "State",
    "TcpListen",
    "Tunnels",
    "Ue",
    "UnixListen",
    "Vnf",
    "load",
    "names_of",
    "parse",
]
