"""Configuration: TOML, checked once, becomes frozen settings; plus the names an instance uses on the host."""

from tof.config.applications import checked_application
from tof.config.names import Names, QueueNames, names_of
from tof.config.reading import load, parse
from tof.config.settings import (
    S1,
    Accounting,
    Agent,
    Api,
    Application,
    Collector,
    Config,
    Dns,
    IpInterface,
    IpNetwork,
    Log,
    Mirror,
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
    "Application",
    "Collector",
    "Config",
    "Dns",
    "IpInterface",
    "IpNetwork",
    "Log",
    "Mirror",
    "Names",
    "Pinger",
    "QueueNames",
    "State",
    "TcpListen",
    "Tunnels",
    "Ue",
    "UnixListen",
    "Vnf",
    "checked_application",
    "load",
    "names_of",
    "parse",
]
