// Prints the body of a URL by Node's own fetch.
const answer = await fetch(process.argv[2]);
if (!answer.ok) throw new Error(`status ${answer.status}`);
process.stdout.write(await answer.text());
