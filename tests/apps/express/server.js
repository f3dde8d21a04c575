// Hello from Express: what a first app looks like.
"use strict";

const express = require("express");

const app = express();
const port = process.env.PORT || 5000;

app.get("/", (_request, response) => {
  response.send(`hello from ${process.env.DYNO || "nowhere"} by Express\n`);
});

const server = app.listen(port, "0.0.0.0", () => console.log(`express listens on ${port}`));

process.on("SIGTERM", () => server.close(() => process.exit(0)));
