// Kubernetes objects, one JSON document on standard input as a list, against the schemas of their kinds. Prints what is
// wrong with each; silence is good. Unknown fields are errors: the schemas themselves would let them pass.
"use strict";
const fs = require("fs");
const path = require("path");
const tools = path.resolve(process.argv[2], "node_modules");

function model({ apiVersion, kind }) {
  const [group, version] = apiVersion.includes("/") ? apiVersion.split("/") : ["", apiVersion];
  const home = group === "monitoring.coreos.com" ? "@kubernetes-models/prometheus-operator" : "kubernetes-models";
  return require(path.join(tools, home, group, version, kind))[kind];
}

for (const object of JSON.parse(fs.readFileSync(0))) {
  try {
    new (model(object))(object).validate();
  } catch (e) {
    console.log(`${object.kind} ${object.metadata.name}: ${e.message}`);
  }
}
