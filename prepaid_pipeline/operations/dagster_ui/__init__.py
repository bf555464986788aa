"""Dagster's UI in a process of our own: who may reach it, who is signed in, and what they may do.

Dagster's web server itself lets everybody in, takes what changes things from any web page, and lets
any page listen to the logs of runs. It runs here as a part of our own application, and never alone.
"""
