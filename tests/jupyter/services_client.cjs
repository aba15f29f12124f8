// What VS Code does with an "existing Jupyter server", by the library that it and JupyterLab do it with.
// Arguments: address, token. Prints one line of JSON.
const { KernelManager, KernelSpecManager, ServerConnection, SessionManager } = require('@jupyterlab/services')
const WebSocket = require('ws')

const [baseUrl, token] = process.argv.slice(2)
const serverSettings = ServerConnection.makeSettings({
  baseUrl, wsUrl: baseUrl.replace('http', 'ws'), token, appendToken: true, WebSocket, fetch, Request, Headers
})

async function run(kernel, code) {
  const seen = { text: '', types: [] }
  const future = kernel.requestExecute({ code, stop_on_error: true })
  future.onIOPub = ({ header, content }) => {
    seen.types.push(header.msg_type)
    if (header.msg_type === 'stream') seen.text += content.text
    if (header.msg_type === 'execute_result') seen.text += content.data['text/plain']
  }
  seen.status = (await future.done).content.status
  return seen
}

async function main() {
  const found = {}
  const specs = new KernelSpecManager({ serverSettings })
  await specs.ready
  found.default = specs.specs.default
  const sessions = new SessionManager({ serverSettings, kernelManager: new KernelManager({ serverSettings }) })
  await sessions.ready
  const path = 'folder/notebook-jvsc-1.ipynb'
  const session = await sessions.startNew({ path, name: 'notebook.ipynb', type: 'notebook', kernel: { name: found.default } })
  const kernel = session.kernel
  found.language = (await kernel.info).language_info.name
  found.result = await run(kernel, 'x = 6 * 7\nprint("out")\nx')
  found.completion = (await kernel.requestComplete({ code: 'x.bit_l', cursor_pos: 7 })).content.matches
  found.inspection = (await kernel.requestInspect({ code: 'print', cursor_pos: 5, detail_level: 0 })).content.found

  const endless = run(kernel, 'import time\nprint("begun", flush=True)\ntime.sleep(600)')
  await new Promise((resolve) => {
    kernel.iopubMessage.connect((_, { header }) => header.msg_type === 'stream' && resolve())
  })
  await kernel.interrupt()
  found.interrupted = (await endless).status
  found.kept = (await run(kernel, 'x')).text

  await kernel.restart()
  await kernel.info
  found.forgotten = (await run(kernel, '"x" in dir()')).text

  // as when a laptop is closed: the connection goes, the kernel works on, the library comes back by itself
  const slow = run(kernel, 'import time\nfor i in range(5):\n    print(i, flush=True)\n    time.sleep(0.3)')
  await new Promise((resolve) => setTimeout(resolve, 400))
  kernel._ws.terminate()
  found.reconnected = (await slow).text

  const copy = new SessionManager({ serverSettings, kernelManager: new KernelManager({ serverSettings }) })
  await copy.ready
  await copy.refreshRunning()
  found.running = Array.from(copy.running(), ({ path }) => path)
  copy.dispose()
  await session.setPath('folder/renamed.ipynb')
  found.renamed = session.path
  await session.shutdown()
  await sessions.refreshRunning()
  found.left = Array.from(sessions.running()).length
  console.log(JSON.stringify(found))
  process.exit(0)
}

main().catch((error) => { console.error(error); process.exit(1) })
