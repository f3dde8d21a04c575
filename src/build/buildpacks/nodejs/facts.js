// facts.js NPM: what the buildpack asks about package.json, the lock file, node and npm, in one
// start of node: a line `NAME VALUE` each. Status 1: package.json is not valid JSON.
"use strict";
const fs = require("fs");
const path = require("path");

const json = (file) => JSON.parse(fs.readFileSync(file, "utf8").replace(/^\uFEFF/, ""));
const attempt = (work) => {
  try {
    return work();
  } catch {
    return undefined;
  }
};
const object = (value) => (value && typeof value === "object" ? value : {});
const say = (name, value) => console.log(name, String(value || "").replace(/\s+/g, " "));

const app = object(attempt(() => json("package.json")) ?? process.exit(1));
const scripts = object(app.scripts);
const npm = attempt(() => path.dirname(path.dirname(fs.realpathSync(process.argv[2])))) || "/";
const wanted = typeof object(app.engines).node === "string" ? app.engines.node : "";

// npm brings the module that reads ranges; where it cannot be found a range counts as met.
const semver = [path.join(npm, "node_modules"), "/usr/share/nodejs"]
  .map((root) => attempt(() => require(path.join(root, "semver"))))
  .find((module) => module);
const fits = !semver || semver.satisfies(process.versions.node, wanted || "*");

// Whether the lock file says all that `npm ci` installs: every package by the sum of its archive,
// and nothing runs. What lies in the source, comes from a repository or is made here may differ.
const lifecycle =
  /^(preinstall|install|postinstall|prepublish|preprepare|prepare|postprepare|dependencies)$/;
const settled = () => {
  if (Object.keys(scripts).some((name) => lifecycle.test(name)) || app.workspaces) return false;
  if (fs.existsSync("binding.gyp")) return false;
  const file = ["npm-shrinkwrap.json", "package-lock.json"].find((name) => fs.existsSync(name));
  const all = Object.entries(object(object(file && json(file)).packages));
  const others = all.filter(([at]) => at !== "").map(([, one]) => one);
  const plain = (one) => (one.integrity || one.inBundle) && !one.link && !one.hasInstallScript;
  return others.length > 0 && others.every(plain);
};

say("wanted", wanted);
say("fits", fits ? "yes" : "no");
say("manager", typeof app.packageManager === "string" ? app.packageManager : "");
say("node", process.versions.node);
say("npm", attempt(() => json(path.join(npm, "package.json")).version));
say("dev", Object.keys(object(app.devDependencies)).length > 0 ? "yes" : "no");
say("settled", attempt(settled) ? "yes" : "no");
for (const name of ["heroku-prebuild", "heroku-postbuild", "heroku-cleanup", "build"]) {
  say(`script-${name}`, scripts[name] ? "yes" : "no");
}
