// The texts of the page, in English and in Chinese.

const WORDS = {
  en: {
    message: 'Message', placeholder: 'Write a message…', send: 'Send', stop: 'Stop', agent: 'Agent', agents: 'Agents',
    you: 'You', sessions: 'Sessions', conversation: 'Conversation', newSession: 'New session', find: 'Find a session',
    menu: 'Menu', close: 'Close', share: 'Share', rename: 'Rename', remove: 'Delete',
    welcome: 'What shall we talk about?', welcomeHint: 'Choose an agent, and write a message below.',
    noSessions: 'No sessions yet. The sessions that you start appear here.', noMatch: 'No session matches. Try another word.',
    noMatchYet: 'No match in the newest {n} sessions. To search older ones, press “Show more”.',
    listFailed: 'The list of sessions cannot be loaded now.', tryAgain: 'Try again', showMore: 'Show more', showEarlier: 'Show earlier',
    scrollToEnd: 'To the newest', broken: 'broken', ready: 'ready', answering: 'answering',
    isBroken: '{name} is broken', reloadAgent: 'Reload {name}',
    brokenHint: 'Correct its file. Then reload the agent, or restart the hub.', noAgents: 'There are no agents. Put a file into the folder agents/, and restart the hub.',
    unknownAgent: 'There is no agent “{name}”. Choose another one below.', badSession: 'The session in this address has an invalid name. Start a new session.',
    connecting: 'Connecting…', unreachable: 'The hub cannot be reached. The page tries again. Messages that you write now are sent when the connection is back.',
    catchingUp: 'Loading messages…', connected: 'Connected', isAnswering: '{name} is answering…', stopping: 'Stopping…',
    needsYou: '{name} is waiting for your answer', closed: 'The hub closed the connection ({code}). Reload the page.', reload: 'Reload',
    draining: 'The hub is shutting down. Answers that do not finish in time are stopped. Queued messages are answered after the restart.', sending: 'sending…', notSent: 'not sent: {message}',
    isTyping: '{name} is writing…', someone: 'Someone', people: '{n} here', alone: 'Only you',
    takenBack: 'taken back', waitsFor: 'Waiting for {name}', takeBack: 'Take back', queuedMessage: 'a message to {name}',
    code: 'code', copy: 'Copy', copied: 'Copied', edit: 'Edit', editText: 'New text', save: 'Save', cancel: 'Cancel',
    regenerate: 'Answer again', fork: 'Fork from here', retry: 'Try again', dismiss: 'Dismiss',
    thinking: 'Thinking…', thought: 'Thought', thoughtFor: 'Thought for {n} s', args: 'Arguments', result: 'Result',
    calling: 'calling', running: 'running', done: 'done', failed: 'failed', fullResult: 'Complete result, {size}',
    cancelled: 'Stopped', max_tokens: 'Cut off: the answer reached the length limit', timeout: 'Stopped: the answer took too long',
    refused: 'The model refused to answer', tool_calls: 'Ended with a tool call',
    aborted: 'Stopped: the hub shut down before the answer was finished', error: 'Failed', interrupt: 'Ended with a question', nothing: 'No text',
    shownAsText: 'This message could not be laid out. It is shown as plain text.',
    question: 'A question for you', yes: 'Yes', no: 'No', reply: 'Answer', yourReply: 'Your answer', decline: 'Do not answer',
    answered: 'Answered', declined: 'Not answered', choose: 'Choose…', noChoice: 'No choice', asJson: 'Your answer, as JSON', notJson: 'This is not valid JSON. Correct it, and send it again.',
    jsonBy: 'JSON that matches the schema {schema}', optional: '(optional)', moreThan: 'The value must be greater than {n}.', lessThan: 'The value must be less than {n}.',
    first: 'first text after {time}', rate: '{n} tokens/s', tokens: '{n} tokens', token: '{n} token', input: '{n} tokens in', about: 'about {text}',
    notCopied: 'The browser does not allow this page to copy. Select the text, and press Ctrl+C.',
    shareNetwork: 'Everyone who can reach {host} and opens this address joins the session: they can read all of it, and write in it.',
    shareLocal: 'Everyone who opens this address on this machine joins the session: they can read all of it, and write in it.', link: 'Address of this session',
    title: 'Name of this session', manage: 'This session', deleteHint: 'Delete the session for everyone. This cannot be undone.', confirmDelete: 'Delete it',
    sessionDeleted: 'The session was deleted.', readingAll: 'Loading the complete session…', notPrinted: 'Earlier messages are not printed. To print the complete session, press Ctrl+P on the page.', image: 'image', attachment: 'attachment', checked: 'done', unchecked: 'to do',
    untitled: 'New session', sharedHere: 'Here now', docs: 'How programs use this hub',
    stopAll: 'Stop all', nextAfter: 'After a stop, the next message is answered.',
    answerHere: 'Write your answer…', answerAbove: 'Answer above. A message that you write here is queued.',
    confirmTitle: 'Take back', confirmText: 'The messages after it are taken back, too, for everyone. Messages: {n}.', confirmButton: 'Take back',
  },
  zh: {
    message: '消息', placeholder: '写一条消息…', send: '发送', stop: '停止', agent: '智能体', agents: '智能体',
    you: '你', sessions: '会话', conversation: '对话', newSession: '新会话', find: '查找会话',
    menu: '菜单', close: '关闭', share: '分享', rename: '重命名', remove: '删除',
    welcome: '想聊点什么？', welcomeHint: '选择一个智能体，然后在下面输入消息。',
    noSessions: '还没有会话。你开始的会话会出现在这里。', noMatch: '没有匹配的会话。请换个词试试。',
    noMatchYet: '最新的 {n} 个会话里没有匹配的。要查找更早的会话，请点“显示更多”。',
    listFailed: '暂时无法载入会话列表。', tryAgain: '重试', showMore: '显示更多', showEarlier: '显示更早的',
    scrollToEnd: '回到最新', broken: '有故障', ready: '就绪', answering: '正在回答',
    isBroken: '{name} 有故障', reloadAgent: '重新载入 {name}',
    brokenHint: '请改正它的文件，然后重新载入这个智能体，或重启 Hub。', noAgents: '没有智能体。请把一个文件放到 agents/ 文件夹，然后重启 Hub。',
    unknownAgent: '没有智能体“{name}”。请在下面另选一个。', badSession: '这个地址里的会话名称无效。请新建一个会话。',
    connecting: '正在连接…', unreachable: '连不上 Hub，页面正在重试。你现在写的消息会在连接恢复后发送。',
    catchingUp: '正在载入消息…', connected: '已连接', isAnswering: '{name} 正在回答…', stopping: '正在停止…',
    needsYou: '{name} 在等你回答', closed: 'Hub 关闭了连接（{code}）。请重新载入页面。', reload: '重新载入',
    draining: 'Hub 正在停止。来不及完成的回答会被中断。排队的消息会在重启后得到回答。', sending: '发送中…', notSent: '未发送：{message}',
    isTyping: '{name} 正在输入…', someone: '有人', people: '{n} 人在线', alone: '只有你',
    takenBack: '已撤回', waitsFor: '等待 {name}', takeBack: '撤回', queuedMessage: '发给 {name} 的消息',
    code: '代码', copy: '复制', copied: '已复制', edit: '编辑', editText: '新的内容', save: '保存', cancel: '取消',
    regenerate: '重新回答', fork: '从这里分叉', retry: '重试', dismiss: '关闭提示',
    thinking: '思考中…', thought: '思考过程', thoughtFor: '思考了 {n} 秒', args: '参数', result: '结果',
    calling: '准备调用', running: '运行中', done: '完成', failed: '失败', fullResult: '完整结果，{size}',
    cancelled: '已停止', max_tokens: '已截断：回答达到长度上限', refused: '模型拒绝回答', tool_calls: '以调用工具结束', timeout: '已停止：回答用时过长',
    aborted: '已中断：回答完成之前 Hub 停止了', error: '失败', interrupt: '以提问结束', nothing: '没有内容',
    shownAsText: '这条消息排版失败。现在按纯文本显示。',
    question: '需要你回答', yes: '是', no: '否', reply: '回答', yourReply: '你的回答', decline: '不回答',
    answered: '已回答', declined: '未回答', choose: '请选择…', noChoice: '不选', asJson: '你的回答（JSON）', notJson: '这不是有效的 JSON。请改正后再发送。',
    jsonBy: '符合模式 {schema} 的 JSON', optional: '（可选）', moreThan: '值必须大于 {n}。', lessThan: '值必须小于 {n}。',
    first: '{time} 后出现第一段文字', rate: '{n} token/秒', tokens: '{n} token', token: '{n} token', input: '读入 {n} token', about: '约 {text}',
    notCopied: '浏览器不允许这个页面复制。请选中文字，然后按 Ctrl+C。',
    shareNetwork: '能访问 {host} 的人打开这个地址就会加入会话：能看到全部内容，也能发消息。',
    shareLocal: '在这台机器上打开这个地址的人都会加入会话：能看到全部内容，也能发消息。', link: '本会话的地址',
    title: '本会话的名称', manage: '这个会话', deleteHint: '对所有人删除这个会话。此操作无法撤销。', confirmDelete: '确认删除',
    sessionDeleted: '会话已被删除。', readingAll: '正在载入整个会话…', notPrinted: '更早的消息没有打印。要打印整个会话，请在页面上按 Ctrl+P。', image: '图片', attachment: '附件', checked: '已完成', unchecked: '未完成',
    untitled: '新会话', sharedHere: '现在在线', docs: '程序如何使用这个 Hub',
    stopAll: '全部停止', nextAfter: '停止后会接着回答下一条消息。',
    answerHere: '写下你的回答…', answerAbove: '请在上面回答。在这里写的消息会排队。',
    confirmTitle: '撤回', confirmText: '它之后的消息也会对所有人撤回。消息数：{n}。', confirmButton: '撤回',
  },
}

const preferred = (globalThis.navigator?.languages ?? []).map((tag) => tag.slice(0, 2).toLowerCase())
/** The language of the page: the first one of the browser's list that has texts here. */
export const language = preferred.find((code) => code in WORDS) ?? 'en'

/** Return a text of the page; *values* replace the names in braces. */
export const t = (key, values = {}) => WORDS[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name])

const LOCALE = language === 'zh' ? 'zh-CN' : undefined
const DAY = new Intl.DateTimeFormat(LOCALE ?? 'en', { month: 'short', day: 'numeric' })
const HOUR = new Intl.DateTimeFormat(LOCALE ?? 'en', { hour: '2-digit', minute: '2-digit', hour12: false })

/** Format a time: the hour if it is today, else the day. */
export function formatTime(ts) {
  const date = new Date(ts)
  return (date.toDateString() === new Date().toDateString() ? HOUR : DAY).format(date)
}

export const formatNumber = (value, digits = 0) => value.toLocaleString(LOCALE ?? 'en', { maximumFractionDigits: digits, minimumFractionDigits: digits })

export { WORDS }
