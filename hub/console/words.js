// What the page says, in English and in Chinese, by the browser's language.

const WORDS = {
  en: {
    message: 'Message', placeholder: 'Write a message…', send: 'Send', stop: 'Stop', agent: 'Agent', agents: 'Agents',
    you: 'You', sessions: 'Sessions', conversation: 'Conversation', newSession: 'New session', find: 'Find a session',
    menu: 'Menu', close: 'Close', share: 'Share', rename: 'Rename', remove: 'Delete',
    welcome: 'What shall we talk about?', welcomeMore: 'Choose who answers, and write below.',
    noSessions: 'Nothing yet. What you write appears here.', noMatch: 'No session has that. Try another word.',
    noneOfThese: 'Not found in the newest {n} sessions. Older ones were not searched: press “Show more”.',
    listFailed: 'The list cannot be loaded now.', again: 'Try again', showMore: 'Show more', showEarlier: 'Show earlier',
    toEnd: 'To the newest', broken: 'broken', ready: 'ready', answering: 'answering',
    isBroken: '{name} is broken', mend: 'Reload {name}',
    brokenMore: 'Mend its file; then reload the agent or restart the hub.', noAgents: 'There is no agent. Put one into the folder agents/, and start the hub again.',
    unknownAgent: 'There is no agent “{name}” here. Choose another one below.', badSession: 'This address names no session. Begin a new one.',
    connecting: 'Connecting…', unreachable: 'The hub cannot be reached. Trying again. Messages that you send now go out when the connection is back.',
    catchingUp: 'Catching up…', connected: 'Connected', isAnswering: '{name} is answering…', stopping: 'Stopping…',
    needsYou: '{name} waits for an answer', closed: 'The hub has closed this connection ({code}).', reload: 'Load again',
    draining: 'The hub is shutting down. Answers that do not finish in time are stopped. Messages that wait are answered after a restart.', sending: 'sending…', notSent: 'not sent: {message}',
    isTyping: '{name} is writing…', someone: 'Someone', people: '{n} here', alone: 'Only you',
    takenBack: 'taken back', waitsFor: 'Waits for {name}', takeBack: 'Take back', anothers: 'a message to {name}',
    code: 'code', copy: 'Copy', copied: 'Copied', edit: 'Edit', editText: 'New text', save: 'Save', cancel: 'Cancel',
    regenerate: 'Answer again', fork: 'Fork from here', retry: 'Try again', dismiss: 'Dismiss',
    thinking: 'Thinking…', thought: 'Thought', thoughtFor: 'Thought for {n} s', args: 'Arguments', result: 'Result',
    called: 'calling', running: 'running', done: 'done', failed: 'failed', whole: 'The whole result, {size}',
    cancelled: 'Stopped', max_tokens: 'Cut off: as long as the model was allowed', timeout: 'Ended: it took too long',
    refused: 'The model did not want to answer', tool_calls: 'Ended with the call of a tool',
    aborted: 'Stopped: the hub shut down before the answer was finished', error: 'Failed', interrupt: 'Ended with a question', nothing: 'No text',
    asText: 'The layout of this message failed. It is shown as plain text.',
    asks: 'A question for you', yes: 'Yes', no: 'No', reply: 'Answer', yourReply: 'Your answer', decline: 'Do not answer',
    answered: 'Answered', declined: 'Not answered', choose: 'Choose…', noChoice: 'No choice', asJson: 'Your answer, as JSON', notJson: 'This is not valid JSON. Correct it, and send it again.',
    jsonBy: 'As JSON, by the schema {schema}', optional: '(optional)', moreThan: 'The value must be more than {n}.', lessThan: 'The value must be less than {n}.',
    first: 'first text after {time}', rate: '{n} tokens/s', tokens: '{n} tokens', token: '{n} token', input: '{n} tokens in', about: 'about {text}',
    notCopied: 'The browser does not let this page copy. Select the text, and press Ctrl+C.',
    shareFar: 'Whoever can reach {host} and opens this address joins: they see all of it, and may write.',
    shareMore: 'Whoever opens this address on this machine joins: they see all of it, and may write.', link: 'Address of this session',
    title: 'Name of this session', manage: 'This session', removeMore: 'Deletes it for everyone. This cannot be undone.', really: 'Delete it',
    removed: 'The session was deleted.', reading: 'Reading the whole session…', notAll: 'Earlier messages are not printed. To print the whole session, press Ctrl+P on the page.', image: 'image', attachment: 'attachment', checked: 'done', unchecked: 'to do',
    untitled: 'New session', sharedHere: 'Here now', docs: 'How programs talk to this hub',
    stopAll: 'Stop all', nextAfter: 'After Stop the next one is answered.',
    answerHere: 'Write your answer…', answerAbove: 'Answer above. What you write here waits.',
    doubt: 'Take back', takesBack: 'What comes after it is taken back, too, for everyone. Messages: {n}.', goOn: 'Take back',
  },
  zh: {
    message: '消息', placeholder: '写点什么…', send: '发送', stop: '停止', agent: '由谁回答', agents: '智能体',
    you: '你', sessions: '会话', conversation: '对话', newSession: '新会话', find: '查找会话',
    menu: '菜单', close: '关闭', share: '分享', rename: '重命名', remove: '删除',
    welcome: '想聊点什么？', welcomeMore: '选择由谁回答，然后在下面输入。',
    noSessions: '还没有会话。你写的内容会出现在这里。', noMatch: '没有找到，换个词试试。',
    noneOfThese: '最新的 {n} 个会话里没有找到。更早的会话还没有查找：请点“显示更多”。',
    listFailed: '暂时无法取得列表。', again: '重试', showMore: '显示更多', showEarlier: '显示更早的',
    toEnd: '回到最新', broken: '有故障', ready: '就绪', answering: '正在回答',
    isBroken: '{name} 有故障', mend: '重新载入 {name}',
    brokenMore: '请修好它的文件，然后重新载入这个智能体或重启 Hub。', noAgents: '没有智能体。请放一个到 agents/ 文件夹，然后重新启动。',
    unknownAgent: '这里没有智能体“{name}”，请在下面另选一个。', badSession: '这个地址里没有有效的会话。请新建一个。',
    connecting: '正在连接…', unreachable: '连不上 Hub，正在重试。你现在发送的消息会在连接恢复后发出。',
    catchingUp: '正在补上内容…', connected: '已连接', isAnswering: '{name} 正在回答…', stopping: '正在停止…',
    needsYou: '{name} 在等你回答', closed: 'Hub 关闭了连接（{code}）。', reload: '重新载入',
    draining: 'Hub 正在停止。来不及完成的回答会被中断，等待中的消息会在重启后得到回答。', sending: '发送中…', notSent: '未发送：{message}',
    isTyping: '{name} 正在输入…', someone: '有人', people: '{n} 人在线', alone: '只有你',
    takenBack: '已撤回', waitsFor: '等待 {name}', takeBack: '撤回', anothers: '发给 {name} 的消息',
    code: '代码', copy: '复制', copied: '已复制', edit: '编辑', editText: '新的内容', save: '保存', cancel: '取消',
    regenerate: '重新回答', fork: '从这里分叉', retry: '重试', dismiss: '关闭提示',
    thinking: '思考中…', thought: '思考过程', thoughtFor: '思考了 {n} 秒', args: '参数', result: '结果',
    called: '准备调用', running: '运行中', done: '完成', failed: '失败', whole: '完整结果，{size}',
    cancelled: '已停止', max_tokens: '已截断：达到长度上限', refused: '模型拒绝回答', tool_calls: '以调用工具结束', timeout: '已结束：用时过长',
    aborted: '已中断：回答完成之前 Hub 停止了', error: '失败', interrupt: '以提问结束', nothing: '没有内容',
    asText: '这条消息排版失败，按纯文本显示。',
    asks: '需要你回答', yes: '是', no: '否', reply: '回答', yourReply: '你的回答', decline: '不回答',
    answered: '已回答', declined: '未回答', choose: '请选择…', noChoice: '不选', asJson: '你的回答（JSON）', notJson: '这不是有效的 JSON，请改正后再发送。',
    jsonBy: '以 JSON 填写，遵循模式 {schema}', optional: '（可选）', moreThan: '值必须大于 {n}。', lessThan: '值必须小于 {n}。',
    first: '{time} 后出字', rate: '{n} token/秒', tokens: '{n} token', token: '{n} token', input: '读入 {n} token', about: '约 {text}',
    notCopied: '浏览器不允许这个页面复制。请选中文字，然后按 Ctrl+C。',
    shareFar: '能访问 {host} 的人打开这个地址就会加入：能看到全部内容，也能发言。',
    shareMore: '在这台机器上打开这个地址的人都会加入：能看到全部内容，也能发言。', link: '本会话的地址',
    title: '本会话的名称', manage: '这个会话', removeMore: '对所有人删除，无法撤销。', really: '确认删除',
    removed: '会话已被删除。', reading: '正在读取整个会话…', notAll: '更早的消息没有打印。要打印整个会话，请在页面上按 Ctrl+P。', image: '图片', attachment: '附件', checked: '已完成', unchecked: '未完成',
    untitled: '新会话', sharedHere: '现在在线', docs: '程序如何接入',
    stopAll: '全部停止', nextAfter: '停止后会接着回答下一条。',
    answerHere: '写下你的回答…', answerAbove: '请在上面回答；这里写的内容会排队。',
    doubt: '撤回', takesBack: '它之后的消息也会对所有人撤回，共 {n} 条。', goOn: '撤回',
  },
}

const wanted = globalThis.navigator?.languages ?? []
/** The first of the browser's languages that this page speaks. */
export const language = wanted.map((one) => one.slice(0, 2).toLowerCase()).find((one) => one in WORDS) ?? 'en'

/** Say something: *values* take the places in braces. */
export const t = (key, values = {}) => WORDS[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name])

const LOCALE = language === 'zh' ? 'zh-CN' : undefined
const DAY = new Intl.DateTimeFormat(LOCALE ?? 'en', { month: 'short', day: 'numeric' })
const HOUR = new Intl.DateTimeFormat(LOCALE ?? 'en', { hour: '2-digit', minute: '2-digit', hour12: false })

/** A time of today by the clock, an older one by its day. */
export function when(ts) {
  const date = new Date(ts)
  return (date.toDateString() === new Date().toDateString() ? HOUR : DAY).format(date)
}

export const number = (value, digits = 0) => value.toLocaleString(LOCALE ?? 'en', { maximumFractionDigits: digits, minimumFractionDigits: digits })

export { WORDS }
