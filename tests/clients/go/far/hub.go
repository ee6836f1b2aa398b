package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
)

// What gh asks of a GitHub server of one's own: a repository by REST, its pull requests by GraphQL.
func hub(mux *http.ServeMux) {
	say := func(path, query string, what object) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			asked, _ := io.ReadAll(r.Body)
			answer := what
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			switch {
			case r.Header.Get("Authorization") != "token none":
				w.WriteHeader(http.StatusUnauthorized)
				answer = object{"message": "Bad credentials"}
			case !strings.Contains(string(asked), query):
				w.WriteHeader(http.StatusBadRequest)
				answer = object{"message": "expected " + query}
			}
			json.NewEncoder(w).Encode(answer)
		})
	}
	say("GET /api/v3/repos/ops/repo", "", object{"full_name": "ops/repo"})
	say("POST /api/graphql", "query PullRequestList(", object{"data": object{"repository": object{
		"pullRequests": object{
			"totalCount": 1,
			"pageInfo":   object{"hasNextPage": false, "endCursor": ""},
			"nodes": []object{{
				"number": 7, "title": "Mend the pump", "state": "OPEN", "headRefName": "mend",
				"headRepositoryOwner": object{"login": "ops"}, "createdAt": "2026-01-02T03:04:05Z",
			}},
		},
	}}})
}
