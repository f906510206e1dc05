"""A CloudFormation template as JSON, its short forms (`!Ref`, `!Sub`) written out: `template.py FILE`."""

import json
import sys

from cfnlint.decode import cfn_yaml


def main() -> None:
    json.dump(cfn_yaml.load(sys.argv[1]), sys.stdout, default=str)


if __name__ == "__main__":
    main()
