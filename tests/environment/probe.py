"""Fetches each URL by the library named first, and prints the body, a line each."""
import importlib
import sys

library, urls = sys.argv[1], sys.argv[2:]
module = importlib.import_module(library)
for url in urls:
    try:
        if library == "requests":
            print(module.get(url, timeout=20).text)
        else:
            print(module.urlopen(url, timeout=20).read().decode())
    except Exception as error:
        print("error", error)
