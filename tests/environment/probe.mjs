// Fetches each URL by Node's own fetch, and prints the body, a line each.
for (const url of process.argv.slice(2)) {
  try {
    console.log(await (await fetch(url)).text());
  } catch (error) {
    console.log("error", error.cause ?? error);
  }
}
