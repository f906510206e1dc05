"""One call of an AWS API, for the tests: `aws.py ENDPOINT SERVICE OPERATION`, parameters as JSON on stdin, the answer as JSON on
stdout. An error of the service is an answer, too: {"Error": {"Code": …, "Message": …}}. The service `moto` is moto itself."""

import ast
import json
import sys
import urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError


def main() -> None:
    endpoint, service, operation = sys.argv[1:]
    if service == "moto":
        # moto's own settings: `config`.
        url = f"{endpoint}/moto-api/{operation}"
        request = urllib.request.Request(url, sys.stdin.read().encode(), {"Content-Type": "application/json"})
        urllib.request.urlopen(request).read()
        print("{}")
        return
    client = boto3.client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="TESTADMIN",
        aws_secret_access_key="test-admin-secret",
        config=Config(retries={"max_attempts": 1}, read_timeout=60),
    )
    try:
        answer = getattr(client, operation)(**json.load(sys.stdin))
        answer.pop("ResponseMetadata", None)
    except ClientError as error:
        answer = {"Error": error.response["Error"]}
    # moto writes a role's policy as Python has it where a part of it is left out.
    if isinstance(answer.get("PolicyDocument"), str):
        answer["PolicyDocument"] = ast.literal_eval(answer["PolicyDocument"])
    json.dump(answer, sys.stdout, default=str)


if __name__ == "__main__":
    main()
