"""Hello from Flask: what a first app looks like."""

import os

from flask import Flask

app = Flask(__name__)


@app.route("/")
def hello():
    return f"hello from {os.environ.get('DYNO', 'nowhere')} by Flask\n"
