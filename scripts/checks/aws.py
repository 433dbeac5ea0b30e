"""deploy/aws/: the tables have the keys of the store, and the rights of the service are those that its code needs. cfn-lint, in
`make dynamodb`, checks that CloudFormation takes them."""
import re

from .common import ROOT, load, wrong

TABLE = "store/dynamodb/src/table.rs"


def cloudformation(files):
    source = (ROOT / TABLE).read_text()
    calls = set(re.findall(r"\bclient\s*\.([a-z_]+)\(\)", source))
    needed = sorted("dynamodb:" + "".join(word.title() for word in call.split("_")) for call in calls)
    for file in files:
        for template in load(file):
            resources = template["Resources"]
            table = resources["Table"]["Properties"]
            keys = {key["AttributeName"]: key["KeyType"] for key in table["KeySchema"]}
            if keys != {"p": "HASH", "s": "RANGE"} or table["TimeToLiveSpecification"]["AttributeName"] != "t":
                wrong(file, "has other keys or another TTL attribute than the store")
            allowed = resources["ServicePolicy"]["Properties"]["PolicyDocument"]["Statement"][0]["Action"]
            if allowed != needed:
                wrong(file, f"allows {allowed}, but {TABLE} needs {needed}")
