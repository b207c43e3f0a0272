"""Contains all the data models used in inputs/outputs"""

from .app import App
from .app_environment import AppEnvironment
from .app_fault import AppFault
from .app_restart import AppRestart
from .app_services_item import AppServicesItem
from .app_view import AppView
from .app_view_state import AppViewState
from .app_view_timings import AppViewTimings
from .chain import Chain
from .chain_on_failure import ChainOnFailure
from .check import Check
from .field_error import FieldError
from .flavour import Flavour
from .get_document_response_200 import GetDocumentResponse200
from .health import Health
from .health_check import HealthCheck
from .health_check_kind import HealthCheckKind
from .health_state import HealthState
from .learnt_address import LearntAddress
from .mirror import Mirror
from .policy import Policy
from .problem import Problem
from .security_group import SecurityGroup
from .security_rule import SecurityRule
from .security_rule_direction import SecurityRuleDirection
from .service import Service
from .service_initiates import ServiceInitiates
from .service_mode import ServiceMode
from .service_status import ServiceStatus
from .service_status_state import ServiceStatusState
from .session import Session
from .session_state import SessionState
from .spread import Spread
from .spread_by import SpreadBy
from .spread_on_death import SpreadOnDeath
from .traffic import Traffic
from .tunnel import Tunnel
from .tunnel_direction import TunnelDirection
from .tunnel_state import TunnelState
from .usage import Usage

__all__ = (
    "App",
    "AppEnvironment",
    "AppFault",
    "AppRestart",
    "AppServicesItem",
    "AppView",
    "AppViewState",
    "AppViewTimings",
    "Chain",
    "ChainOnFailure",
    "Check",
    "FieldError",
    "Flavour",
    "GetDocumentResponse200",
    "Health",
    "HealthCheck",
    "HealthCheckKind",
    "HealthState",
    "LearntAddress",
    "Mirror",
    "Policy",
    "Problem",
    "SecurityGroup",
    "SecurityRule",
    "SecurityRuleDirection",
    "Service",
    "ServiceInitiates",
    "ServiceMode",
    "ServiceStatus",
    "ServiceStatusState",
    "Session",
    "SessionState",
    "Spread",
    "SpreadBy",
    "SpreadOnDeath",
    "Traffic",
    "Tunnel",
    "TunnelDirection",
    "TunnelState",
    "Usage",
)
