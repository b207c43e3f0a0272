"""Application instances of ETSI MEC 010-2: decisions, what is kept, requests, answers, filters, the document."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tof.agent.app import App, AppFault, AppState, AppView, Step
from tof.agent.lcm import (
    ALLOWED,
    Descriptor,
    Instance,
    Next,
    Occurrence,
    Operation,
    Phase,
    Power,
    check_allowed,
    next_of,
    power_of,
    reason,
)
from tof.agent.lcm_body import LONGEST_ID, descriptor_body, kept, kind_of, parse_descriptor, recalled
from tof.agent.lcm_subscription import News, Product, Selector, Subject, Subscription, wants
from tof.api import lcm_render as render
from tof.api.document import LCM_DOCUMENT, load_document
from tof.api.lcm_filter import parse_filter, selected
from tof.api.lcm_handlers import LcmHandlers
from tof.api.lcm_port import NoLcm
from tof.api.lcm_requests import check_terminate, operate_target, parse_subscription, vim_of
from tof.errors import BadRequest, Conflict

ROOT = Path(__file__).resolve().parents[2]
APP = App("app", command=("/bin/web",))
WEB = Descriptor("urn:web", "example", "web", "1", "1.0", APP)
ONE = Instance("one", WEB, "web 1")
BEGUN = Occurrence("op", "one", Operation.INSTANTIATE, Power.STARTED, 1.5, 2.25)
FAULT = AppFault(Step.BUILD, "no host", "add one")
DOC = load_document(LCM_DOCUMENT)


def view(state: AppState, fault: AppFault | None = None) -> AppView:
    return AppView(ONE.app, state, fault=fault)


# decisions


def test_an_instance_s_app_is_called_as_the_instance() -> None:
    assert ONE.app == App("one", command=("/bin/web",))
    assert ONE.on(None) is ONE
    assert ONE.on("other").app.vim == "other"


@pytest.mark.parametrize("power", Power)
@pytest.mark.parametrize(("operation", "target"), ALLOWED)
def test_an_operation_needs_an_instance_that_it_is_for(
    operation: Operation, target: Power, power: Power
) -> None:
    instance = replace(ONE, power=power)
    if power in ALLOWED[operation, target]:
        check_allowed(instance, operation, target)
    else:
        with pytest.raises(Conflict, match=power.value):
            check_allowed(instance, operation, target)


@pytest.mark.parametrize("state", [*AppState, None])
def test_what_is_next_is_derived_from_the_app(state: AppState | None) -> None:
    there = None if state is None else view(state)
    for_starting = {None: Next.FAIL, AppState.READY: Next.DONE, AppState.FAILED: Next.NOTE}
    assert next_of(BEGUN, there) is for_starting.get(state, Next.WAIT)
    noted = replace(BEGUN, detail="because")
    assert (next_of(noted, there) is Next.REMOVE) is (state is AppState.FAILED)
    leaving = replace(BEGUN, operation=Operation.TERMINATE, target=Power.NOT_INSTANTIATED)
    assert next_of(leaving, there) is (Next.DONE if state is None else Next.WAIT)


def test_what_an_instance_is_without_an_operation() -> None:
    started = replace(ONE, power=Power.STARTED)
    for there in (None, view(AppState.FAILED), view(AppState.TERMINATING)):
        assert power_of(started, there) is Power.STOPPED
        assert power_of(ONE, there) is Power.NOT_INSTANTIATED
    assert power_of(started, view(AppState.RESTARTING)) is Power.STARTED


def test_why_an_app_failed() -> None:
    assert reason(FAULT) == "build: no host; add one"
    assert reason(replace(FAULT, hint="")) == "build: no host"
    assert reason(None) == "its app failed"


def test_an_occurrence_further_on() -> None:
    assert not BEGUN.over
    failed = BEGUN.at(Phase.FAILED, 3.0, "because")
    assert (failed.over, failed.entered, failed.detail, failed.started) == (True, 3.0, "because", 1.5)
    assert failed.at(Phase.FAILED, 4.0).detail == "because"
    assert failed.left_at is Power.NOT_INSTANTIATED
    assert replace(failed, operation=Operation.OPERATE).left_at is Power.STOPPED


# subscriptions


def subscription(subject: Subject = Subject.INSTANCES, **more: Any) -> Subscription:
    return Subscription("s", subject, "http://127.0.0.1/x", "http://tof", **more)


@pytest.mark.parametrize(
    ("of", "told"),
    [
        (subscription(), True),
        (subscription(Subject.OPERATIONS), False),
        (subscription(states=("NOT_INSTANTIATED",)), True),
        (subscription(states=("STOPPED",)), False),
        (subscription(selector=Selector.IDENTITY, values=("one",)), True),
        (subscription(selector=Selector.IDENTITY, values=("two",)), False),
        (subscription(selector=Selector.NAME, values=("web 1",)), True),
        (subscription(selector=Selector.DESCRIPTOR, values=("urn:web",)), True),
        (subscription(selector=Selector.PROVIDER), False),
        (subscription(selector=Selector.PROVIDER, products=(Product("example"),)), True),
        (subscription(selector=Selector.PROVIDER, products=(Product("other"),)), False),
        (
            subscription(selector=Selector.PROVIDER, products=(Product("example", "web", "1", ("1.0",)),)),
            True,
        ),
        (
            subscription(selector=Selector.PROVIDER, products=(Product("example", "web", "1", ("2.0",)),)),
            False,
        ),
        (subscription(selector=Selector.PROVIDER, products=(Product("example", "web", "2"),)), False),
        (subscription(selector=Selector.PROVIDER, products=(Product("example", "video"),)), False),
    ],
)
def test_who_is_told_of_an_instance(of: Subscription, told: bool) -> None:
    assert wants(of, News(ONE)) is told


def test_who_is_told_of_an_operation() -> None:
    news = News(ONE, BEGUN)
    assert wants(subscription(Subject.OPERATIONS), news)
    assert not wants(subscription(), news)
    assert not wants(subscription(Subject.OPERATIONS, states=("FAILED",)), news)
    assert not wants(subscription(Subject.OPERATIONS, operations=("OPERATE",)), news)
    assert wants(subscription(Subject.OPERATIONS, states=("STARTING",), operations=("INSTANTIATE",)), news)


# what is kept


@pytest.mark.parametrize(
    "thing",
    [
        WEB,
        ONE,
        replace(ONE, name=None, description="x", power=Power.STOPPED),
        BEGUN,
        BEGUN.at(Phase.FAILED, 3.0, "because"),
        subscription(),
        subscription(
            Subject.OPERATIONS,
            selector=Selector.PROVIDER,
            values=("a",),
            products=(Product("p"), Product("p", "n", "1", ("2",))),
            states=("FAILED",),
            operations=("OPERATE",),
        ),
    ],
)
def test_what_is_kept_comes_back(thing: Any) -> None:
    assert recalled(kind_of(thing), json.loads(json.dumps(kept(thing)))) == thing


def test_what_is_no_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="is no kind"):
        recalled("chain", {})


@pytest.mark.parametrize(
    ("identifier", "app", "field", "error"),
    [
        ("", {}, "appDId", BadRequest),
        ("x" * (LONGEST_ID + 1), {}, "appDId", BadRequest),
        ("x", {"name": "web"}, "app.name", BadRequest),
        ("x", {"command": []}, "app.command", BadRequest),
        ("x", {"services": [{"name": "x", "serviceIP": "no"}]}, "app.services[0].serviceIP", BadRequest),
    ],
)
def test_descriptors_that_cannot_be(identifier: str, app: Any, field: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        parse_descriptor(identifier, {**descriptor_body(WEB), "app": {**descriptor_body(WEB)["app"], **app}})
    assert getattr(caught.value, "field", "") == field


# requests


def test_the_vim_of_an_instantiation() -> None:
    assert vim_of({}) is None
    assert vim_of({"vimConnectionInfo": [], "virtualStorageDescriptor": []}) is None
    assert vim_of({"vimConnectionInfo": [{"id": "a"}]}) == "a"
    assert vim_of({"vimConnectionInfo": [{"id": "a", "vimId": "b"}]}) == "b"
    for body in (
        {"vimConnectionInfo": [{"id": "a"}, {"id": "b"}]},
        {"virtualComputeDescriptor": "x"},
        {"virtualStorageDescriptor": ["x"]},
    ):
        with pytest.raises(BadRequest):
            vim_of(body)


STOP = {"changeStateTo": "STOPPED"}


def test_starting_and_stopping() -> None:
    assert operate_target({"changeStateTo": "STARTED"}) is Power.STARTED
    for good in (
        STOP,
        {**STOP, "stopType": "FORCEFUL"},
        {**STOP, "stopType": "GRACEFUL", "gracefulStopTimeout": 0},
    ):
        assert operate_target(good) is Power.STOPPED
    for bad in (
        {"changeStateTo": "STARTED", "stopType": "FORCEFUL"},
        {"changeStateTo": "STARTED", "gracefulStopTimeout": 1},
        {**STOP, "gracefulStopTimeout": 1},
        {**STOP, "stopType": "FORCEFUL", "gracefulStopTimeout": 1},
        {**STOP, "stopType": "GRACEFUL"},
    ):
        with pytest.raises(BadRequest):
            operate_target(bad)
    check_terminate({"terminationType": "GRACEFUL", "gracefulTerminationTimeout": 1})
    check_terminate({"terminationType": "FORCEFUL"})
    with pytest.raises(BadRequest):
        check_terminate({"terminationType": "FORCEFUL", "gracefulTerminationTimeout": 1})


def test_subscriptions_as_asked_for() -> None:
    plain = {"callbackUri": "http://127.0.0.1/x"}
    chosen = {
        "appInstSelectorType": "APP_FROM_PROVIDER",
        "appInstances": ["one"],
        "appsFromProviders": [
            {"appProvider": "p"},
            {
                "appProvider": "p",
                "appProducts": {"appName": "n", "versions": {"appSoftVersion": "1", "appDVersion": ["2"]}},
            },
        ],
    }
    products = (Product("p"), Product("p", "n", "1", ("2",)))
    read = parse_subscription(
        {
            **plain,
            "subscriptionType": "AppInstanceStateChange",
            "appInstanceState": "STOPPED",
            "appInstanceSubscriptionFilter": chosen,
        },
        "http://tof",
    )
    expected = subscription(
        selector=Selector.PROVIDER, values=("one",), products=products, states=("STOPPED",)
    )
    assert read == replace(expected, id="")
    plain["subscriptionType"] = "AppLcmOpOccStateChange"
    assert parse_subscription(plain, "http://tof") == replace(subscription(Subject.OPERATIONS), id="")
    wanted = {
        "operationStates": "FAILED",
        "operationTypes": "OPERATE",
        "appInstanceSubscriptionFilter": {"appInstSelectorType": "APP_IDENTITY", "appInstances": ["one"]},
    }
    read = parse_subscription({**plain, "appLcmOpOccSubscriptionFilter": wanted}, "http://tof")
    assert (read.states, read.operations, read.values) == (("FAILED",), ("OPERATE",), ("one",))


# answers


def test_answers_lead_to_what_is_possible() -> None:
    body = render.instance_body(ONE, "http://tof")
    assert body["_links"]["instantiate"]["href"] == "http://tof/app_lcm/v1/app_instances/one/instantiate"
    assert "appInstanceDescription" not in body
    body = render.instance_body(replace(ONE, power=Power.STOPPED), "http://tof")
    assert body["_links"].keys() == {"self", "terminate", "operate"}
    assert body["instantiatedAppState"] == {"operationalState": "STOPPED"}


def test_an_occurrence_and_its_times() -> None:
    body = render.occurrence_body(BEGUN, "http://tof")
    assert body["startTime"] == {"seconds": 1, "nanoSeconds": 500_000_000}
    assert body["stateEnteredTime"] == {"seconds": 2, "nanoSeconds": 250_000_000}
    assert "error" not in body
    failed = render.occurrence_body(BEGUN.at(Phase.FAILED, 3.0, "because"), "http://tof")
    assert failed["error"]["detail"] == "because"


def test_subscriptions_and_notifications() -> None:
    assert render.subscription_body(subscription(), "x")["notificationType"] == "STARTED"
    assert render.subscription_body(subscription(states=("STOPPED",)), "x")["notificationType"] == "STOPPED"
    assert "notificationType" not in render.subscription_body(subscription(Subject.OPERATIONS), "x")
    told = render.notification(subscription(Subject.OPERATIONS), News(ONE, BEGUN), "n", 5.0)
    assert told["_links"]["appLcmOpOcc"]["href"] == "http://tof/app_lcm/v1/app_lcm_op_occs/op"
    assert (told["id"], told["notificationType"], told["subscriptionId"]) == ("n", "STARTING", "s")
    told = render.notification(subscription(), News(ONE), "n", 5.0)
    assert (told["appDId"], told["notificationType"]) == ("urn:web", "NOT_INSTANTIATED")


# filters

BODY: dict[str, Any] = {"id": "a", "n": 3, "deep": {"state": "it's, (on)"}, "error": {}}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("(eq,id,a)", True),
        ("(eq,id,b)", False),
        ("(neq,id,b)", True),
        ("(in,id,b,a)", True),
        ("(nin,id,b,a)", False),
        ("(cont,deep/state,x,on)", True),
        ("(ncont,deep/state,on)", False),
        ("(eq,deep/state,'it''s, (on)')", True),
        ("(gt,n,2);(lte,n,3)", True),
        ("(gte,n,3);(lt,n,3)", False),
        ("(gt,id,A)", True),
        ("(gt,deep,1)", False),
        ("(eq,none,a)", False),
        ("(neq,none,a)", True),
        ("(eq,id/deeper,a)", False),
    ],
)
def test_filters(text: str, holds: bool) -> None:
    assert bool(selected([BODY], {"filter": text}, ())) is holds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "(eq,id)",
        "(eq,id,)",
        "(is,id,a)",
        "(eq,id,a",
        "(eq,id,a);",
        "(eq,id,a)x",
        "(eq,id,a,b)",
        "(gt,n,x)",
        ";".join(["(eq,id,a)"] * 33),
    ],
)
def test_filters_that_are_none(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        selected([BODY], {"filter": text}, ())
    assert caught.value.field == "filter"


@given(st.text("(),;'/eqinconta ", max_size=30))
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    try:
        terms = parse_filter(text)
    except BadRequest:
        return
    assert terms
    assert all(term.holds({}) in (True, False) for term in terms)


def test_attributes_are_chosen() -> None:
    optional = ("error", "deep")
    assert selected([BODY], {}, optional) == [BODY]
    assert selected([BODY], {"fields": "deep"}, optional)[0].keys() == {"id", "n", "deep"}
    assert selected([BODY], {"exclude_fields": "deep,id"}, optional)[0].keys() == {"id", "n", "error"}
    with pytest.raises(BadRequest):
        selected([BODY], {"fields": "a", "exclude_fields": "b"}, optional)


# the document


def test_the_document_in_the_package_is_the_one_in_openapi() -> None:
    assert LCM_DOCUMENT.resolve() == ROOT / "openapi" / "mec010.yaml"
    assert DOC.content["openapi"].startswith("3.1.")


def test_every_operation_has_a_handler_and_every_handler_an_operation() -> None:
    handled = {*LcmHandlers(NoLcm(), DOC, lambda _body: []).by_operation()}
    assert {op.operation_id for op in DOC.operations} == handled
    assert all(op.path.startswith(f"{render.ROOT}/") for op in DOC.operations)


def test_the_words_of_document_and_code_are_the_same() -> None:
    schemas = DOC.content["components"]["schemas"]
    assert schemas["Power"]["enum"] == [*Power]
    assert schemas["OperationState"]["enum"] == [*Phase]
    assert schemas["OperationType"]["enum"] == [*Operation]
    assert schemas["SubscriptionType"]["enum"] == [*Subject]
    selectors = schemas["InstanceFilter"]["properties"]["appInstSelectorType"]["enum"]
    assert selectors == [*Selector]
    spelt = schemas["AppInstanceLcmOpOcc"]["properties"]["lcmOperation"]["enum"]
    assert spelt == [render.LCM_OPERATION[one] for one in Operation]


def test_the_example_of_the_document_is_a_descriptor() -> None:
    example = DOC.content["components"]["schemas"]["DescriptorRequest"]["example"]
    assert DOC.operation("declareDescriptor").check_body(example) == []
    app = parse_descriptor("video", example).app
    assert load_document().operation("createApp").check_body({"name": "app", **example["app"]}) == []
    assert app.services[0].name == "video"
