"""moto whose Step Functions do five things as AWS's do:

- parameters and answers of services are spelt in a state machine as `ClusterArn` where the ECS API has `clusterArn`; moto has what
  it takes to translate (`_to_boto_request`, `_from_boto_response`) and does not use it;
- the `cause` of SendTaskFailure is passed on;
- a task that is tried again gets a token of its own;
- a heartbeat that is missed can be caught as `States.HeartbeatTimeout`;
- `ecs:runTask` takes a `CapacityProviderStrategy`.
"""

import sys

import boto3
from moto.core.responses import EmptyResult
from moto.server import main
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import StatesErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name_type import StatesErrorNameType
from moto.stepfunctions.parser.asl.component.state.exec.execute_state import ExecutionState, RetryOutcome
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_callback import (
    StateTaskServiceCallback,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import state_task_service_ecs
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.resource import ResourceCondition
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service import (
    StateTaskService,
)
from moto.stepfunctions.parser.asl.eval.callback.callback import HeartbeatTimeoutError
from moto.stepfunctions.responses import StepFunctionResponse


def operation(task: StateTaskService, service: str | None, action: str | None):
    client = boto3.client(
        task._get_boto_service_name(service),
        region_name="us-east-1",
        aws_access_key_id="none",
        aws_secret_access_key="none",
    )
    name = client.meta.method_to_api_mapping[task._get_boto_service_action(action)]
    return client.meta.service_model.operation_model(name)


def normalise_parameters(self, parameters, boto_service_name=None, service_action_name=None):
    shape = operation(self, boto_service_name, service_action_name).input_shape
    if shape is not None:
        self._to_boto_request(parameters, shape)


def normalise_response(self, response, boto_service_name=None, service_action_name=None):
    shape = operation(self, boto_service_name, service_action_name).output_shape
    if shape is not None:
        self._from_boto_response(response, shape)


def send_task_failure(self):
    token, error, cause = (self._get_param(name) for name in ("taskToken", "error", "cause"))
    self.stepfunction_backend.send_task_failure(token, error=error, cause=cause)
    return EmptyResult()


handle_retry = ExecutionState._handle_retry


def handle_retry_with_a_token_of_its_own(self, env, failure_event):
    outcome = handle_retry(self, env=env, failure_event=failure_event)
    waits = isinstance(self, StateTaskServiceCallback) and self.resource.condition == ResourceCondition.WaitForTaskToken
    if waits and outcome == RetryOutcome.CanRetry:
        env.callback_pool_manager.add(env.states.context_object.update_task_token())
    return outcome


from_error = StateTaskServiceCallback._from_error


def from_error_with_missed_heartbeats(self, env, ex):
    event = from_error(self, env=env, ex=ex)
    if isinstance(ex, HeartbeatTimeoutError):
        event.error_name = StatesErrorName(typ=StatesErrorNameType.StatesHeartbeatTimeout)
    return event


state_task_service_ecs._SUPPORTED_API_PARAM_BINDINGS["runtask"].add("CapacityProviderStrategy")
StepFunctionResponse.send_task_failure = send_task_failure
ExecutionState._handle_retry = handle_retry_with_a_token_of_its_own
StateTaskServiceCallback._from_error = from_error_with_missed_heartbeats
StateTaskService._normalise_parameters = normalise_parameters
StateTaskService._normalise_response = normalise_response

if __name__ == "__main__":
    main(sys.argv[1:])
