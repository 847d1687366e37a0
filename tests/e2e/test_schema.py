"""gwpctl schema: the JSON Schema of the configuration against good and broken files."""
import json

import jsonschema
import pytest
import yaml

from harness import BUILD, ROOT, run_ctl

CORPUS = ROOT / "tests" / "golden" / "config"

# What only loading can tell: it lies between keys, or within a text.
BEYOND = {"addresses_without_brackets", "admin_default_taken", "numbers_of_octal_look", "request_variables_misspelt",
          "backends_that_are_the_gateway", "bad_hosts", "bad_names", "bad_proxies",
          "bad_sliding_window", "block_scalars", "bucket_counts", "duplicate_backends", "duplicate_keys",
          "duplicate_keys_at_every_level", "duplicate_listeners", "duplicate_route_names", "escaped_nul",
          "listens_nowhere", "long_texts", "malformed_variables", "no_routes", "ports_out_of_range", "prefixes_that_match_nothing",
          "request_variable_elsewhere", "routes_left_empty", "same_requests", "secrets_are_not_quoted",
          "unset_variable", "unset_variables_in_lists", "variables_each_where_it_stands"}


@pytest.fixture(name="validator", scope="module")
def _validator():
    schema = json.loads(run_ctl([BUILD / "gwpctl", "schema"]).out)
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_good_files_pass(validator, path):
    """All that are shipped."""
    assert not list(validator.iter_errors(yaml.safe_load(path.read_text())))


def test_broken_files_are_refused(validator):
    """Every one of the corpus whose fault can be seen in a single value, and that YAML reads at all."""
    refused = passed = 0
    for path in sorted(CORPUS.glob("*.yaml")):
        try:
            document = yaml.safe_load(path.read_bytes())
        except (yaml.YAMLError, UnicodeDecodeError):
            continue
        errors = list(validator.iter_errors(document))
        if path.stem in BEYOND:
            passed += 1
        else:
            refused += 1
            assert errors, f"{path.name} passes the schema"
    assert refused >= 40 and passed >= 15


def test_variables_stand_for_any_value(validator):
    """Of a key, and within lists."""
    document = {"metrics": {"duration_buckets_seconds": ["${A}", 1]}, "server": {"workers": "${W:-2}", "addr": ["${B}"]},
                "routes": [{"path_prefix": "${P}", "strip_prefix": "${S}", "backends": [{"url": "${U}", "weight": "${X}"}],
                            "circuit_breaker": {"failure_status": [500, "${F}"]}}]}
    assert not list(validator.iter_errors(document))


def test_what_it_says_is_where_it_is_wrong(validator):
    """The path to the key, for editors."""
    document = {"routes": [{"path_prefix": "/", "backends": [{"url": "http://h", "weigth": 1}], "retries": 99}]}
    paths = {tuple(e.absolute_path) for e in validator.iter_errors(document)}
    assert ("routes", 0, "backends", 0) in paths and ("routes", 0, "retries") in paths


def test_every_key_is_described_with_its_default(validator):
    """As the reference has it."""
    def walk(schema, path=""):
        for name, key in schema.get("properties", {}).items():
            assert key.get("description"), path + name
            yield path + name
            yield from walk(key, f"{path}{name}.")
            yield from walk(key.get("items", {}), f"{path}{name}[].")
    found = set(walk(validator.schema))
    assert len(found) > 80 and {"server.workers", "routes[].backends[].weight",
                                "routes[].headers.request.set"} <= found
    server = validator.schema["properties"]["server"]["properties"]
    assert server["workers"]["default"] == "auto" and server["header_timeout_seconds"]["default"] == 10
