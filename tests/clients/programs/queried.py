"""Prints the answer to a query, by psycopg and the variables of libpq."""

import sys

import psycopg

with psycopg.connect("") as connection:
    print(connection.execute(sys.argv[1]).fetchone()[0])
