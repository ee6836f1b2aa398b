"""Prints the body of a URL, asked for as `curl --http3` does: by QUIC first, by TCP when that is silent."""

import sys

from curl_cffi import CurlHttpVersion, requests

answer = requests.get(sys.argv[1], http_version=CurlHttpVersion.V3, verify=sys.argv[2])
answer.raise_for_status()
print(answer.text, end="")
