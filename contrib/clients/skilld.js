#!/usr/bin/env node
// Calls skilld over JSON lines: skilld.js [-s SOCKET] [METHOD [PARAMS]], PARAMS being JSON. Needs Node.js 18 or newer.
// Prints the result as JSON. Exit status: 0 done, 1 refused, 3 no daemon that answers.
const args = process.argv.slice(2);
const given = (args[0] === "-s" && args.splice(0, 2)[1]) || process.env.SKILLD_ENDPOINT;
const runtime = process.env.XDG_RUNTIME_DIR || `/run/user/${process.geteuid()}`;
const wellKnown = ["/var/run", "/run", "/var/run/skilld", "/run/skilld", `${runtime}/skilld`];
const paths = given ? [given] : wellKnown.map((directory) => `${directory}/skilld.sock`);
const [method = "skills.list", params = "{}"] = args;
// One request is one line: line breaks in JSON are white space.
const request = `{"jsonrpc":"2.0","id":1,"method":"${method}","params":${params}}`.replaceAll("\n", " ") + "\n";

function end(status, text) {
  process.exitCode = status;
  (status ? console.error : console.log)(text);
}

function call([path, ...others]) {
  if (!path) return end(3, `no daemon at ${paths.join(" ")}`);
  let [isConnected, text] = [false, ""];
  const socket = require("node:net").connect({ path }, () => (isConnected = true) && socket.end(request));
  socket.setEncoding("utf8").on("data", (part) => (text += part));
  socket.on("error", (error) => (isConnected ? end(3, `${path}: ${error.message}`) : call(others)));
  socket.on("end", () => {
    const { result, error } = text ? JSON.parse(text) : { error: null };
    if (error) return end(1, `${error.code} ${error.data.reason}: ${error.message}`);
    result ? end(0, JSON.stringify(result)) : end(3, `${path}: closed without an answer`);
  });
}

call(paths);
